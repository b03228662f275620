"""Differences from a reference row, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from made_up import made_up_run

from harness.analysis.differences import SeedDifference, differences
from harness.analysis.rows import Row, rows_of
from harness.base.statistics import Summary


def pair(differences_by_seed: Sequence[float]) -> tuple[Row, Row]:
    reference = [made_up_run(i, i, 0.5) for i in range(len(differences_by_seed))]
    other = [
        made_up_run(100 + i, i, 0.5 + d, parameters={"lr": 0.2})
        for i, d in enumerate(differences_by_seed)
    ]
    first, second = rows_of([*reference, *other])
    return first, second


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.125] * 6, "better"),
        ([-0.125] * 6, "worse"),
        ([0.125, -0.125] * 3, "cannot be told apart"),
        ([0.125] * 5, "n = 5 is too small"),
        ([0.125], "n = 1 is too small"),
    ],
)
def test_the_verdict_says_what_the_seeds_can_tell(values: list[float], verdict: str) -> None:
    reference, other = pair(values)
    none, difference = differences([reference, other], reference)
    assert none is None
    assert difference
    assert difference.verdict == verdict
    assert difference.record()["pairs"] == len(values)
    assert (difference.record()["difference.low"] is None) == (len(values) == 1)


def test_only_shared_seeds_and_equal_images_are_compared() -> None:
    mine = [made_up_run(i, i, 0.5) for i in range(4)]
    theirs = [made_up_run(9 + i, i, 0.6, parameters={"lr": 0.2}) for i in (2, 3, 4)]
    other_seed = made_up_run(30, 7, 0.6, parameters={"lr": 0.3})
    other_images = made_up_run(31, 0, 0.6, parameters={"lr": 0.4, "dataset": "mnist"})
    found = rows_of([*mine, *theirs, other_seed, other_images])
    compared = differences(found, found[0])
    assert [d and d.record()["pairs"] for d in compared] == [None, 2, 0, 0]
    assert [d and d.verdict for d in compared[2:]] == ["no shared seeds", "other examples"]


def test_a_lower_loss_is_better() -> None:
    summary = Summary(6, -0.5, 0.1, -0.6, -0.4)
    assert SeedDifference("min", summary, 0.01).verdict == "better"
    assert SeedDifference("max", summary, 0.01).verdict == "worse"
