"""Runs whose last epochs jump: which are told, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import DATA, epoch

from experiments.baseline import Baseline
from experiments.diabetes_regression import DiabetesRegression
from harness.execution.steadiness import jump, jump_in_words
from harness.tracking.schema import DataRecord
from harness.training.loop import EpochResult

LARGE = (DATA[0], DataRecord("digits", "test", "1" * 64, 10_000))


def course(*accuracies: float) -> list[EpochResult]:
    return [epoch(number, value) for number, value in enumerate(accuracies, 1)]


JUMPING = (0.8, 0.84, 0.80, 0.85, 0.79, 0.86)


@pytest.mark.parametrize(
    ("accuracies", "data", "jumps"),
    [
        (JUMPING, LARGE, True),
        (JUMPING, DATA, False),  # 50 examples cannot tell
        (JUMPING[1:], LARGE, False),  # four changes
        ((0.5, 0.6, 0.7, 0.8, 0.9, 1.0), LARGE, False),  # a steady rise
        ((0.1, 0.9, 0.1, 0.850, 0.852, 0.851, 0.853, 0.850, 0.852), LARGE, False),
        ((1.0,) * 6, LARGE, False),
        ((*JUMPING[:5], float("nan")), LARGE, False),
        ((), LARGE, False),
    ],
)
def test_what_jumps_more_than_its_examples_can_tell_is_told(
    accuracies: tuple[float, ...], data: Any, jumps: bool
) -> None:
    assert (jump(Baseline(), course(*accuracies), data) is not None) == jumps


def test_the_number_is_the_deviation_of_the_last_five_changes() -> None:
    found = jump(Baseline(), course(0.1, 0.9, *JUMPING), LARGE)
    changes = [0.04, -0.04, 0.05, -0.06, 0.07]
    mean = sum(changes) / 5
    assert found == pytest.approx((sum((c - mean) ** 2 for c in changes) / 4) ** 0.5)


def test_the_line_names_what_was_not_tried() -> None:
    assert jump_in_words(Baseline(), 0.0254) == (
        "the last epochs differ by 2.5 points (sd of the last 5 changes): the result depends on "
        "where training stops; see --average-weights, --schedule"
    )
    assert jump_in_words(Baseline(schedule="cosine"), 0.1).endswith("; see --average-weights")
    both = Baseline(schedule="cosine", average_weights="ema")
    assert jump_in_words(both, 0.1).endswith("depends on where training stops")


def test_a_loss_jumps_in_its_own_unit() -> None:
    epochs = [
        EpochResult(n, {"train/loss": 1.0, "test/loss": loss, "test/mae": loss})
        for n, loss in enumerate((3.0, 1.0, 3.0, 1.0, 3.0, 1.0), 1)
    ]

    class Squares(Baseline):
        def metrics(self) -> dict[str, Any]:
            return {}

    found = jump(Squares(), epochs, LARGE)
    assert found
    assert found == pytest.approx(2.19, abs=0.01)
    assert "differ by 2.1909 of loss (sd" in jump_in_words(Squares(), found)
    assert jump(DiabetesRegression(), epochs, LARGE) is None, "no scale is known"
