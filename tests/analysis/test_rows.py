"""Rows: which runs make one, over which values they average, and how rows are ordered."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_run

from harness.analysis.rows import ordered_rows, rows_of


def test_runs_that_differ_by_seed_alone_are_one_row() -> None:
    (row,) = rows_of([made_up_run(3, 2, 0.92), made_up_run(2, 1, 0.90), made_up_run(1, 0, 0.91)])
    assert (row.n, row.record["seeds"], row.label) == (3, "0 1 2", "baseline lr=0.1")
    summary = row.summary("test/accuracy")
    assert summary
    assert [summary.mean, summary.std] == pytest.approx([0.91, 0.01])
    assert [summary.low, summary.high] == pytest.approx([0.8851586, 0.9348414])
    assert row.record["std.test/accuracy"] == pytest.approx(0.01)
    assert row.mean("test/accuracy") == row.values["metrics.test/accuracy"] == pytest.approx(0.91)
    assert row.record["seconds"] == 3.0
    assert row.short_id == "00000000"


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"lr": 0.2}},
        {"parameters": {"more": 1}},
        {"tags": {"experiment": "lenet"}},
        {"tags": {"device": "cuda"}},
        {"tags": {"threads": "2"}},
        {"tags": {"data.training_sha256": "c" * 64}},
        {"tags": {"experiment_sha256": "e" * 64}},
        {"tags": {"outcome": "interrupted"}},
        {"tags": {"outcome": "running"}},
        {"tags": {"kind": "trial"}},
    ],
)
def test_runs_that_differ_otherwise_are_rows_of_their_own(other: dict[str, Any]) -> None:
    found = rows_of([made_up_run(3, 2, **other), made_up_run(2, 1), made_up_run(1, 0)])
    assert [row.n for row in found] == [1, 2]


@pytest.mark.parametrize(
    ("one", "other", "n_rows"),
    [
        ("1.10", "1.1", 2),
        ("007", "7", 2),
        ("7", 7, 2),
        (True, 1, 2),
        ("True", True, 2),
        (2**63 - 1, 2**63, 2),
        (2**53, float(2**53), 1),
        (2**53 + 1, float(2**53), 2),
        (1, 1.0, 1),
        ([1, 2], [1, 2], 1),
        ([1, 2], [1, 3], 2),
        (None, "None", 2),
    ],
)
def test_values_are_the_same_only_if_they_are_equal(one: Any, other: Any, n_rows: int) -> None:
    found = rows_of(
        [made_up_run(2, 1, parameters={"x": one}), made_up_run(1, 0, parameters={"x": other})]
    )
    assert len(found) == n_rows
    if n_rows == 2:
        shown = [row.values["params.x"] for row in found]
        assert [(type(value), value) for value in shown] == [
            (str, str(value)) if isinstance(value, list) else (type(value), value)
            for value in (one, other)
        ]


def test_a_repeated_seed_counts_once_and_the_latest_run_of_it() -> None:
    runs = [(4, 1, 0.5), (3, 1, 0.6), (2, 0, 0.7), (1, 1, 0.8)]
    (row,) = rows_of([made_up_run(*run) for run in runs])
    assert row.by_seed("test/accuracy") == {0: 0.7, 1: 0.5}
    assert [repeat.run_id[-1] for repeat in row.repeats] == ["3", "1"]
    assert row.holds({f"{1:032x}"})
    assert not row.holds({f"{5:032x}"})


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_mean_over_runs_of_which_one_has_no_value_is_none(missing: float | None) -> None:
    diverged = made_up_run(2, 1, missing, tags={"outcome": "diverged"})
    (row,) = rows_of([diverged, made_up_run(1, 0, 0.5)])
    assert row.n == 2
    assert row.record["metrics.test/accuracy"] is None
    assert row.summary("test/accuracy") is None
    assert row.by_seed("test/accuracy") == {0: 0.5}
    assert row.record["outcome"] == "1 completed, 1 diverged"


def test_a_row_is_called_by_its_group_or_its_latest_run() -> None:
    group = "9" * 32
    (row,) = rows_of([made_up_run(2, 1, parent=group), made_up_run(1, 0, parent=group)])
    assert row.short_id == "9" * 8
    (row,) = rows_of([made_up_run(2, 1, parent=group, run_id="8" * 32), made_up_run(1, 0)])
    assert row.short_id == "8" * 8


def test_a_run_that_the_harness_did_not_record_is_a_row_with_its_own_name() -> None:
    foreign = replace(made_up_run(1), tags={}, name="seed=1 somebody's")
    (row,) = rows_of([foreign])
    assert row.label == "seed=1 somebody's"
    assert row.values["outcome"] is None
    assert row.values["kind"] is None


@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), min_size=1, max_size=8), st.booleans())
def test_the_best_comes_first_and_what_has_no_value_last(
    values: list[float | None], reverse: bool
) -> None:
    found = rows_of(
        [made_up_run(i, i, value, parameters={"lr": i}) for i, value in enumerate(values)]
    )
    for column, descending in ((None, True), ("metrics.test/loss", False)):
        name = column or "metrics.test/accuracy"
        ranked = [row.record.get(name) for row in ordered_rows(found, column, reverse)]
        known = [value for value in ranked if value is not None]
        assert known == sorted(known, reverse=descending != reverse)
        assert ranked[: len(known)] == known
        assert len(known) == sum(value is not None for value in values)


def test_numbers_and_text_in_one_column_are_not_mixed() -> None:
    values = ["b", 10, "1.10", 9, 2**70, None]
    found = rows_of([made_up_run(i, i, parameters={"x": v}) for i, v in enumerate(values)])
    ranked = [row.values["params.x"] for row in ordered_rows(found, "params.x", False)]
    assert ranked == [9, 10, 2**70, "1.10", "b", None]
