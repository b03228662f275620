"""Means with their uncertainty agree with SciPy's, and say how many values they stand on."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from harness.base.statistics import (
    Summary,
    expected_maximum,
    holm_adjusted,
    holm_alphas,
    mcnemar_p,
    summarize,
    wilson_interval,
)

# Rounded, because NumPy's squares of tiny numbers are zero.
VALUES = st.floats(min_value=-1e6, max_value=1e6).map(lambda value: round(value, 9))
SAMPLES = st.lists(VALUES, min_size=2, max_size=30)


@given(SAMPLES)
@example([0.1] * 3)
def test_a_summary_is_that_of_numpy_and_scipy(values: list[float]) -> None:
    summary = summarize(values)
    mean, std = np.mean(values), np.std(values, ddof=1)
    # Rounding in NumPy is relative to the values, not to what is left of them in the difference.
    rounding = 1e-9 * max(map(abs, values))
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(mean, abs=rounding)
    assert summary.std == pytest.approx(std, rel=1e-9, abs=rounding)
    half = stats.t.ppf(0.975, len(values) - 1) * std / math.sqrt(len(values))
    assert summary.low == pytest.approx(mean - half, rel=1e-9, abs=20 * rounding)
    assert summary.high == pytest.approx(mean + half, rel=1e-9, abs=20 * rounding)


def test_the_interval_is_the_one_in_the_tables() -> None:
    summary = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    interval = stats.t.interval(0.95, df=4, loc=3, scale=stats.sem([1, 2, 3, 4, 5]))
    assert (summary.low, summary.high) == pytest.approx(interval)
    assert summary.high == pytest.approx(3 + 2.7764451 * math.sqrt(2.5 / 5))


@given(SAMPLES)
def test_the_order_of_the_values_does_not_matter(values: list[float]) -> None:
    assert summarize(values[::-1]) == summarize(values)


@given(SAMPLES)
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    summary = summarize(values)
    assert summary.low <= summary.mean <= summary.high
    assert summary.std >= 0


@given(VALUES)
def test_a_single_value_has_no_spread(value: float) -> None:
    summary = summarize([value])
    assert (summary.n, summary.mean) == (1, value)
    assert all(map(math.isnan, (summary.std, summary.low, summary.high)))
    assert summary.metrics("loss") == {"loss/n": 1.0, "loss/mean": value}
    assert "(n = 1)" in str(summary)
    assert "nan" not in str(summary)


def test_no_values_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarize([])


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [math.inf, -math.inf]])
def test_what_is_not_finite_has_no_spread(values: list[float]) -> None:
    summary = summarize(values)
    assert not math.isfinite(summary.mean)
    assert all(map(math.isnan, (summary.std, summary.low, summary.high)))


def test_a_summary_prints_n_spread_and_interval() -> None:
    assert str(Summary(3, 0.91, 0.01, 0.885, 0.935)) == (
        "0.9100 ± 0.0100 (n = 3, 95% interval 0.8850 to 0.9350)"
    )


def test_the_metrics_of_a_summary_carry_its_name() -> None:
    assert Summary(3, 0.91, 0.01, 0.885, 0.935).metrics("test/accuracy") == {
        "test/accuracy/n": 3.0,
        "test/accuracy/mean": 0.91,
        "test/accuracy/std": 0.01,
        "test/accuracy/low": 0.885,
        "test/accuracy/high": 0.935,
    }


# ---- the sign-flip test ----


@pytest.mark.processes
def test_an_interval_does_not_wait_for_all_of_scipy_stats() -> None:
    program = (
        "import sys; from harness.base.statistics import summarize; summarize([1.0, 2.0]);"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- the expected maximum ----


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.875]), min_size=1, max_size=4))
def test_the_expected_maximum_is_that_of_all_possible_draws(values: list[float]) -> None:
    expected = expected_maximum(values)
    assert len(expected) == len(values)
    for n, (mean, std) in enumerate(expected, start=1):
        largest = [max(draw) for draw in itertools.product(values, repeat=n)]
        assert mean == pytest.approx(np.mean(largest))
        assert std == pytest.approx(np.std(largest), abs=1e-9)


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (0, 90), (90, 90), (45, 90), (999, 1000), (6000, 6000)]
)
def test_the_interval_of_a_share_is_wilsons(hits: int, n: int) -> None:
    low, high = wilson_interval(hits, n)
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= hits / n <= high <= 1


@given(st.integers(0, 500), st.integers(0, 500))
@example(0, 0)
@example(0, 500)
def test_mcnemar_is_the_binomial_test_of_a_fair_coin(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(first, second) == mcnemar_p(second, first)


def test_holm_is_the_textbook_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm_adjusted(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_alphas(p) == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])
    assert holm_adjusted([]) == holm_alphas([]) == []


P_VALUES = st.lists(st.floats(0, 1) | st.floats(0, 0.06), min_size=1, max_size=12)


@given(P_VALUES)
@example([0.02, 0.02, 0.02])
def test_holm_is_monotone_and_agrees_with_itself(p: list[float]) -> None:
    alphas, adjusted = holm_alphas(p), holm_adjusted(p)
    order = sorted(range(len(p)), key=p.__getitem__)
    for less, more in itertools.pairwise(order):
        assert adjusted[less] <= adjusted[more]
        assert alphas[less] <= alphas[more]
    rejected = [one <= alpha for one, alpha in zip(p, alphas, strict=True)]
    assert [rejected[index] for index in order] == sorted(
        (rejected[index] for index in order), reverse=True
    )
    for index, value in enumerate(adjusted):
        assert p[index] <= value <= 1
        assert 0.05 / len(p) <= alphas[index] <= 0.05
        if abs(value - 0.05) > 1e-12:
            assert rejected[index] == (value <= 0.05)


@given(P_VALUES)
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rejected, corrected, *_ = multitest.multipletests(p, method="holm")
    assert holm_adjusted(p) == pytest.approx(list(corrected))
    if all(abs(value - 0.05) > 1e-12 for value in corrected):
        assert [one <= alpha for one, alpha in zip(p, holm_alphas(p), strict=True)] == list(
            rejected
        )


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_statsmodels(first: int, second: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tables.mcnemar([[7, first], [second, 5]], exact=True).pvalue
    assert mcnemar_p(first, second) == pytest.approx(expected)
