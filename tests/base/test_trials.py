"""The arithmetic on trials: which is the best, and what the sampler found."""

from __future__ import annotations

import pytest

from harness.base.statistics import expected_maximum
from harness.base.trials import (
    TrialRow,
    confirmed_metric,
    expected_best,
    metric_in_words,
    sampled_values,
)

ROWS = [
    TrialRow(0, "completed", (0.5,), {"lr": 0.1}, {1: 0.4, 2: 0.5}),
    TrialRow(1, "diverged", (), {"lr": 9.0}),
    TrialRow(2, "pruned", (0.9,), {"lr": 0.3}, {1: 0.9}),
    TrialRow(3, "failed", (), {"lr": 0.4}),
    TrialRow(4, "completed", (0.7,), {"lr": 0.5}),
    TrialRow(5, "completed", (0.7,), {"lr": 0.6}),
    TrialRow(6, "running", (), {"lr": 0.7}),
]


def test_sampled_values_are_those_of_finished_trials_without_the_defaults() -> None:
    assert sampled_values(ROWS, {"lr": 9.0}) == [0.5, 0.9, 0.7, 0.7]


def test_a_diverged_trial_counts_as_the_worst_that_was_sampled() -> None:
    assert sampled_values(ROWS, {"lr": 0.1}) == [0.7, 0.9, 0.7, 0.7]
    assert sampled_values(ROWS, {"lr": 0.1}, "minimize") == [0.9, 0.9, 0.7, 0.7]
    assert sampled_values(ROWS[1:2], {}) == []


def test_the_expected_best_of_a_direction() -> None:
    values = [0.1, 0.5, 0.9]
    assert expected_best(values) == expected_maximum(values)
    means = [mean for mean, _ in expected_best(values, "minimize")]
    assert means[0] == pytest.approx(0.5)
    # The smallest of two draws out of three: 0.1 with 5/9, 0.5 with 3/9, 0.9 with 1/9.
    assert means[1] == pytest.approx((5 * 0.1 + 3 * 0.5 + 0.9) / 9)


def test_metrics_in_words() -> None:
    assert metric_in_words("validation/accuracy") == "validation accuracy"
    assert confirmed_metric("validation/f1") == "test/f1"
    assert confirmed_metric("system/train_seconds") == "system/train_seconds"
    assert confirmed_metric("validation") == "validation"
