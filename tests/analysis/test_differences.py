"""Differences from a reference row: one verdict, over seeds and examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from made_up import NoArtifacts, made_up_run

from harness.analysis.differences import Difference, between, differences
from harness.analysis.rows import Row, rows_of
from harness.base.example_results import ExampleResults

NO_FILES = NoArtifacts()


def pair(differences_by_seed: Sequence[float]) -> tuple[Row, Row]:
    reference = [made_up_run(i, i, 0.5) for i in range(len(differences_by_seed))]
    other = [
        made_up_run(100 + i, i, 0.5 + d, parameters={"lr": 0.2})
        for i, d in enumerate(differences_by_seed)
    ]
    first, second = rows_of([*reference, *other])
    return first, second


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.125, 0.126, 0.124], "better"),
        ([-0.125, -0.126, -0.124], "worse"),
        ([0.125, -0.125, 0.126, -0.126], "cannot be told apart"),
        ([0.125] * 5, "no verdict"),
        ([0.125, 0.13], "no verdict"),
        ([0.125], "no verdict"),
    ],
)
def test_the_verdict_says_what_the_seeds_can_tell(values: list[float], words: str) -> None:
    reference, other = pair(values)
    none, difference = differences([reference, other], reference, NO_FILES)
    assert none is None
    assert difference
    record = difference.record()
    assert (record["verdict"], record["pairs"]) == (words, len(values))
    assert (record["difference.low"] is None) == (words == "no verdict")
    assert record["difference"] == pytest.approx(sum(values) / len(values))


def test_only_shared_seeds_and_equal_images_are_compared() -> None:
    mine = [made_up_run(i, i, 0.5) for i in range(4)]
    theirs = [made_up_run(9 + i, i, 0.6, parameters={"lr": 0.2}) for i in (2, 3, 4)]
    other_seed = made_up_run(30, 7, 0.6, parameters={"lr": 0.3})
    other_images = made_up_run(31, 0, 0.6, parameters={"lr": 0.4, "dataset": "mnist"})
    found = rows_of([*mine, *theirs, other_seed, other_images])
    compared = differences(found, found[0], NO_FILES)
    assert [d and d.record()["pairs"] for d in compared] == [None, 2, 0, 0]
    assert [d.record()["verdict"] for d in compared[2:] if d] == [
        "no shared seeds",
        "other examples",
    ]


def test_several_are_adjusted_after_holm() -> None:
    spread = (-0.01, 0.0, 0.01, 0.002)
    reference = [made_up_run(i, i, 0.5) for i in range(4)]
    others = [
        made_up_run(100 * k + i, i, 0.5 + k / 100 + d, parameters={"lr": 0.2 * k})
        for k in (1, 2, 3)
        for i, d in enumerate(spread)
    ]
    found = rows_of([*reference, *others])
    compared = [d.verdict for d in differences(found, found[0], NO_FILES) if d and d.verdict]
    assert {verdict.comparisons for verdict in compared} == {3}
    ordered = sorted(compared, key=lambda verdict: verdict.p or 0)
    assert ordered[0].alpha == pytest.approx(0.05 / 3)
    (alone,) = [d.verdict for d in differences(found[:2], found[0], NO_FILES) if d and d.verdict]
    assert (alone.comparisons, alone.alpha) == (1, 0.05)


class Files(NoArtifacts):
    """A store in which each run has results on single examples."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def artifact(self, run_id: str, path: str) -> bytes | None:
        assert path == "examples/test_accuracy.bin"
        return self.content


def test_results_on_single_examples_widen_the_interval() -> None:
    right = np.arange(1000) % 2 == 0
    files = Files(ExampleResults(right, "b" * 64).encode())
    reference, other = pair([0.1, 0.11, 0.12])
    _, difference = differences([reference, other], reference, files)
    assert difference
    assert difference.record()["difference"] == 0


def test_results_on_other_examples_are_named_and_their_mean_is_used() -> None:
    files = Files(ExampleResults(np.ones(10, bool), "c" * 64).encode())
    reference, other = pair([0.1, 0.11, 0.12])
    with pytest.warns(UserWarning, match="results on other examples"):
        _, difference = differences([reference, other], reference, files)
    assert difference
    assert difference.verdict
    assert "There are no values for single examples" in str(difference.verdict)


def test_a_lower_loss_is_better() -> None:
    for best, words in (("min", "better"), ("max", "worse")):
        found = between(
            {0: 1.0, 1: 1.1, 2: 1.05},
            {0: 2.0, 1: 2.11, 2: 2.04},
            metric="test/loss",
            best=best,  # type: ignore[arg-type]
            names=("a", "b"),
        )
        assert Difference(found).record()["verdict"] == words
    assert between({0: 1.0}, {1: 1.0}, metric="x", best=None, names=("a", "b")) is None
