"""Tables and files of made-up rows: exact values, limits, curves."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from made_up import NoArtifacts, made_up_run

from harness.analysis import table
from harness.analysis.comparison import SHOWN_ROWS, Comparison
from harness.analysis.curves import curves_of, draw_curves
from harness.analysis.differences import differences
from harness.analysis.export import comparison_csv, comparison_json
from harness.analysis.rows import rows_of
from harness.base.errors import BadRequest
from harness.tracking.schema import StoredRun


def compared(runs: list[StoredRun], limit: int | None = None) -> Comparison:
    found = rows_of(runs)
    return Comparison("some", tuple(found), "accuracy", (None,) * len(found), limit=limit)


def cells(columns: list[table.Column], header: str) -> tuple[str, ...]:
    (column,) = (column for column in columns if column.header == header)
    return column.cells


EXACT = [["1.10", "1.1"], ["007", "7"], [2**63 - 1, 2**63], [str(2**70), 2**70]]


@pytest.mark.parametrize("values", EXACT)
def test_values_reach_table_and_files_as_they_were_recorded(values: list[Any]) -> None:
    runs = [made_up_run(i, 0, parameters={"x": value}) for i, value in enumerate(values)]
    comparison = compared(runs)
    assert cells(comparison.columns([]), "x") == tuple(map(str, values))
    written = csv.DictReader(io.StringIO(comparison_csv([comparison])))
    assert [row["params.x"] for row in written] == list(map(str, values))
    assert [row["params.x"] for row in json.loads(comparison_json([comparison]))] == values


def test_many_rows_are_printed_in_part_and_written_in_full() -> None:
    runs = [made_up_run(i, 0, parameters={"lr": i / 1000}) for i in range(SHOWN_ROWS + 20)]
    for limit, printed, written in ((None, 100, 120), (110, 110, 110), (500, 120, 120)):
        comparison = compared(runs, limit)
        assert len(cells(comparison.columns([]), "lr")) == printed
        notes = [note for note in comparison.notes if "--limit" in note]
        assert notes == (
            [f"showing {printed} of 120 rows: raise --limit."] if printed < 120 else []
        )
        assert len(comparison_csv([comparison]).splitlines()) == 1 + written


def test_a_parameter_that_differs_beyond_the_rows_shown_is_a_column() -> None:
    comparison = compared(
        [made_up_run(2, 0, parameters={"lr": 0.1}), made_up_run(1, 0, parameters={"lr": 0.2})], 1
    )
    assert cells(comparison.columns([]), "lr") == ("0.1",)


def test_a_reference_alone_is_still_called_so() -> None:
    found = rows_of([made_up_run(2, 0), made_up_run(1, 0, parameters={"lr": 0.2})])
    comparison = Comparison(
        "some",
        tuple(found),
        "accuracy",
        tuple(differences(found, found[0], NoArtifacts())),
        found[0],
        limit=1,
    )
    assert cells(comparison.columns([]), "verdict") == ("reference",)


def test_files_of_several_tables_have_the_columns_of_all() -> None:
    first = compared([made_up_run(2, 0, parameters={"b": 1})])
    second = compared([made_up_run(1, 0, None, parameters={"a": 1})])
    one, other = csv.DictReader(io.StringIO(comparison_csv([first, second])))
    names = list(one)
    assert names[:5] == ["row", "name", "n", "seeds", "examples"]
    assert names.index("params.a") < names.index("params.b") < names.index("metrics.test/accuracy")
    assert (one["params.a"], other["params.a"]) == ("", "1")
    assert other["metrics.test/accuracy"] == ""


def test_plain_tables_are_aligned() -> None:
    columns = [
        table.Column("run", ("ab", "abcd")),
        table.Column("test/\naccuracy", ("0.5", "10.25"), numeric=True),
        table.Column("name", ("数字", "x")),
        table.Column("n", ("1", "2"), numeric=True),
    ]
    assert table.plain(columns) == (
        "         test/\nrun   accuracy  name  n\nab         0.5  数字  1\nabcd     10.25  x     2"
    )


def test_markdown_escapes_what_means_something_there() -> None:
    column = table.Column("a\nb", ("x|y", "x\\|y", "<b>`[l](u)", "a_b"))
    assert table.markdown([column]).splitlines() == [
        *("| a b |", "| --- |", r"| x\|y |", r"| x\\\|y |", r"| \<b>\`\[l](u) |", "| a_b |")
    ]


class Histories:
    """A reader that only knows these runs' epochs."""

    def __init__(self, values: dict[str, list[float]]) -> None:
        self.values = values

    def history(self, run_ids: list[str]) -> list[tuple[str, int, str, float]]:
        return [
            (run_id, epoch, metric, value)
            for run_id in run_ids
            for epoch, value in enumerate(self.values[run_id], 1)
            for metric in ("test/accuracy", "test/loss", "time/train_seconds")
        ]


def test_curves_are_means_over_seeds_with_their_deviation() -> None:
    runs = [made_up_run(2, 1), made_up_run(1, 0), made_up_run(3, 0, parameters={"lr": 0.2})]
    nan = float("nan")
    reader: Any = Histories(
        {
            runs[0].run_id: [0.5, 0.75, nan],
            runs[1].run_id: [0.25, 0.25, 1.0],
            runs[2].run_id: [1.0],
        }
    )
    several, single = curves_of(rows_of(runs), ["a", "b"], reader)
    assert (several.label, several.n, single.label, single.n) == ("a", 2, "b", 1)
    assert several.points.keys() == {"test/accuracy", "test/loss"}
    epochs, means, deviations = zip(*several.points["test/accuracy"], strict=True)
    assert (epochs, means) == ((1, 2, 3), (0.375, 0.5, 1.0))
    assert list(deviations[:2]) == pytest.approx([0.25 / 2**0.5, 0.5 / 2**0.5])
    assert deviations[2] is None
    assert single.points["test/accuracy"] == [(1, 1.0, None)]


def test_runs_without_any_epoch_have_no_curves() -> None:
    reader: Any = Histories({})
    with pytest.raises(BadRequest, match="curves: none of these runs"):
        draw_curves(rows_of([made_up_run(1, 0, None)]), ["x"], "title", reader, "png")
