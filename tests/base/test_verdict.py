"""The verdict: its interval, its sentence, and that it is right as often as it says."""

from __future__ import annotations

import dataclasses
import json
import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import stats
from simulate_verdict import (
    Case,
    corrected_pigeonhole_variance,
    coverage,
    false_families,
    pigeonhole_ratios,
    pigeonhole_variance,
    resampled_variance,
    split_coverage,
)

from harness.base.statistics import holm_alphas, summarize, wilson_interval
from harness.base.verdict import Spread, Verdict, adjusted, verdict

Array = NDArray[Any]

NAMES = ("the best configuration", "the defaults")
ACCURACY: dict[str, Any] = {
    "best": "max",
    "metric": "test/accuracy",
    "unit": "points",
    "names": NAMES,
}
LOSS: dict[str, Any] = {"best": "min", "metric": "test/loss"}


def results(seed: int, n: int, m: int, gap: float = 0.0) -> tuple[Array, Array]:
    """Yes-or-no results (n, m) of two configurations on the same examples."""
    rng = np.random.default_rng(seed)
    hard = rng.standard_normal(m)
    first, second = (
        hard + 0.4 * rng.standard_normal((n, m)) + 0.02 * rng.standard_normal((n, 1)) < 1 + shift
        for shift in (gap, 0.0)
    )
    return first, second


PAIRS = st.builds(
    results,
    st.integers(0, 10_000),
    st.integers(3, 8),
    st.integers(2, 60),
    st.sampled_from([0.0, 0.3, 1.0]),
)


@given(PAIRS)
def test_the_interval_is_that_of_crossed_random_effects(pair: tuple[Array, Array]) -> None:
    found = verdict(*pair, **ACCURACY)
    differences = pair[0].astype(float) - pair[1]
    n, m = differences.shape
    rows, columns, mean = differences.mean(1), differences.mean(0), differences.mean()
    assert found.difference == pytest.approx(mean, abs=1e-12)
    if np.ptp(rows) == 0:
        assert found.conclusion == "no verdict"
        return
    # The components of variance, each from its expected mean square.
    of_left = ((differences - rows[:, None] - columns + mean) ** 2).sum() / (n - 1) / (m - 1)
    of_seeds = rows.var(ddof=1) - of_left / m
    of_examples = columns.var(ddof=1) - of_left / n
    variance = of_seeds / n + of_examples / m + of_left / (n * m)
    squares = {
        n - 1: rows.var(ddof=1) / n,
        m - 1: columns.var(ddof=1) / m,
        (n - 1) * (m - 1): of_left / (n * m),
    }
    if len(squares) < 3:
        return
    degrees = variance**2 / sum(square**2 / degrees for degrees, square in squares.items())
    if variance <= 1e-9 or degrees < 1:
        return
    expected = stats.t.interval(0.95, degrees, loc=mean, scale=math.sqrt(variance))
    assert found.interval == pytest.approx(expected, rel=1e-6)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / math.sqrt(variance), degrees))
    assert found.spread
    if of_examples >= 0:
        parts = found.spread.from_seeds + found.spread.from_examples
        assert parts == pytest.approx(variance)


@given(PAIRS, st.sampled_from(["max", "min", None]))
def test_swapping_the_two_flips_the_sign(pair: tuple[Array, Array], best: Any) -> None:
    options = ACCURACY | {"best": best}
    there, back = verdict(*pair, **options), verdict(*pair[::-1], **options)
    assert there.difference == -(back.difference or 0.0)
    opposite = {"better": "worse", "worse": "better"}
    assert there.conclusion == opposite.get(back.conclusion, back.conclusion)
    assert (there.p, there.spread) == (back.p, back.spread)
    if there.interval and back.interval:
        assert there.interval == tuple(-end for end in back.interval[::-1])


@given(PAIRS, st.floats(1e-3, 1e3))
def test_a_unit_scales_the_interval_and_nothing_else(
    pair: tuple[Array, Array], scale: float
) -> None:
    plain = verdict(*pair, **LOSS)
    scaled = verdict(*(scale * side for side in pair), **LOSS)
    assert scaled.conclusion == plain.conclusion
    assert scaled.p == (plain.p if plain.p is None else pytest.approx(plain.p))
    assert scaled.seeds_to_halve == plain.seeds_to_halve
    if plain.interval:
        assert scaled.interval == pytest.approx([scale * end for end in plain.interval])


@example(results(0, 4, 3), Random(0))  # one degree of freedom, but for rounding
@example(results(0, 4, 3), Random(1))
@example(results(0, 4, 3), Random(2))
@example(results(0, 4, 3), Random(3))
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_examples_does_not_matter(
    pair: tuple[Array, Array], random: Any
) -> None:
    n, m = pair[0].shape
    rows, columns = random.sample(range(n), n), random.sample(range(m), m)
    there = verdict(*pair, **ACCURACY)
    mixed = verdict(*(side[rows][:, columns] for side in pair), **ACCURACY)
    assert mixed.conclusion == there.conclusion
    if there.interval:
        assert mixed.interval == pytest.approx(there.interval, abs=1e-9)


def test_without_values_for_single_examples_the_interval_is_over_seeds() -> None:
    first, second = [0.80, 0.82, 0.81, 0.85], [0.79, 0.78, 0.80, 0.82]
    found = verdict(first, second, **ACCURACY)
    expected = summarize([a - b for a, b in zip(first, second, strict=True)])
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.correlation == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert "over seeds only" in found.sentence
    assert "no values for single examples: about other test examples" in str(found)


def test_one_training_without_examples_leaves_seeds_only() -> None:
    first, second = results(1, 4, 50)
    found = verdict([*first[:3], float(first[3].mean())], second, **ACCURACY)
    assert found.interval == verdict(first.mean(1), second.mean(1), **ACCURACY).interval
    assert "over seeds only" in found.sentence


def test_the_pairs_of_drawn_splits_have_examples_of_their_own() -> None:
    rng = np.random.default_rng(0)
    first = [rng.random(size) for size in (30, 30, 29, 29)]
    second = [side + 0.1 * rng.standard_normal(len(side)) for side in first]
    found = verdict(first, second, splits="drawn", **LOSS)
    means = [[float(side.mean()) for side in sides] for sides in (first, second)]
    expected = summarize([a - b for a, b in zip(*means, strict=True)])
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert "over splits, n = 4 paired splits" in found.sentence
    assert "a split of its own" in str(found)
    assert "held fixed" not in str(found)


@pytest.mark.parametrize("splits", ["fixed", "drawn"])
def test_results_on_different_examples_are_refused(splits: Any) -> None:
    ones = [np.ones(5), np.ones(5)]
    with pytest.raises(ValueError, match=r"different numbers of examples: \[4, 5\]"):
        verdict(ones, [np.ones(5), np.ones(4)], splits=splits, **LOSS)
    with pytest.raises(ValueError, match="cannot be paired: 2 and 1"):
        verdict(ones, ones[:1], splits=splits, **LOSS)
    with pytest.raises(ValueError, match="results of one training"):
        verdict([np.ones((2, 2))], [np.ones((2, 2))], splits=splits, **LOSS)


def test_one_pair_of_trainings_is_judged_by_mcnemar_about_itself() -> None:
    first, second = np.ones(100, bool), np.ones(100, bool)
    first[:1], second[10:19] = False, False
    found = verdict([first], [second], **ACCURACY)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert (found.conclusion, found.interval) == ("no verdict", None)
    assert found.sentence == (
        "The best configuration differs from the defaults by +8.00 points of test accuracy (n = 1; "
        "McNemar's exact test on the test examples, 9 right in the first alone and 1 in the second "
        "alone, p = 0.021): these two trainings differ; whether the configurations differ cannot "
        "be told from one seed."
    )
    assert found.details == ()
    same = verdict([first], [first], **ACCURACY)
    assert same.p == 1
    assert "these two trainings cannot be told apart either" in same.sentence


def test_one_pair_with_other_values_is_judged_over_its_examples() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(40)
    second = first + 0.1 * rng.standard_normal(40)
    found = verdict([first], [second], **LOSS)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.conclusion == "no verdict"
    assert "over test examples" in found.sentence
    assert "from one seed" in found.sentence
    assert verdict([0.5], [0.6], **LOSS).sentence == (
        "The first differs from the second by -0.1000 of test loss (n = 1): whether the "
        "configurations differ cannot be told from one seed."
    )


def test_two_pairs_have_no_verdict() -> None:
    found = verdict(*results(0, 2, 1000, 1.0), **ACCURACY)
    assert (found.conclusion, found.p, found.interval) == ("no verdict", None, None)
    assert "(n = 2 paired seeds): no verdict, which takes 3 pairs or more." in found.sentence


def test_a_spread_of_zero_makes_no_interval() -> None:
    first, second = results(0, 1, 1000, 0.5)
    found = verdict(np.repeat(first, 5, 0), np.repeat(second, 5, 0), **ACCURACY)
    assert (found.conclusion, found.p, found.interval) == ("no verdict", None, None)
    low, high = wilson_interval(5, 5)
    assert found.details == (
        "The best configuration is better with 5 of 5 seeds "
        f"(95% Wilson interval {low:.0%} to {high:.0%}).",
    )
    # 0.3 - 0.2 and 0.5 - 0.4 are equal but for rounding.
    assert verdict([0.3, 0.5, 0.8], [0.2, 0.4, 0.7], **ACCURACY).conclusion == "no verdict"
    same = verdict(np.repeat(first, 3, 0), np.repeat(first, 3, 0), **ACCURACY)
    assert same.details == ()
    assert "by +0.00 points of test accuracy in each pair" in same.sentence


def test_a_variance_that_is_not_positive_has_no_verdict() -> None:
    square = np.array([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]])
    first = square + np.array([[1.0], [1.01], [1.02]])
    found = verdict(first, np.zeros((3, 3)), **LOSS)
    assert found.spread
    assert found.spread.variance() <= 0
    assert (found.conclusion, found.p, found.interval) == ("no verdict", None, None)
    assert "variance is not positive" in found.sentence
    assert found.seeds_to_halve is found.detectable is None
    assert json.loads(json.dumps(found.record()))["variance.seeds"] is None


@pytest.mark.parametrize("lost", [None, math.nan, np.array([0.0, np.inf])])
def test_a_training_that_diverged_is_no_number(lost: Any) -> None:
    first, second = results(0, 5, 1000, 0.3)
    found = verdict([lost, *first[1:]], [*second[:4], lost], **ACCURACY)
    assert (found.n, found.seeds, found.finished) == (3, 5, (4, 4))
    rest = verdict(first[1:4], second[1:4], **ACCURACY)
    assert (found.interval, found.p) == (rest.interval, rest.p)
    assert "n = 3 pairs of 5, those that finished" in found.sentence
    low, high = wilson_interval(4, 5)
    words = f"with 4 of 5 seeds (95% Wilson interval {low:.0%} to {high:.0%})."
    assert found.details[0] == f"The best configuration finished {words}"
    assert found.details[1] == f"The defaults finished {words}"


def test_nothing_that_finished_cannot_be_compared() -> None:
    found = verdict([None, 1.0], [1.0, None], **ACCURACY)
    assert (found.difference, found.conclusion, found.n) == (None, "no verdict", 0)
    assert found.sentence == (
        "The best configuration and the defaults cannot be compared: no pair finished."
    )
    assert verdict([], [], **ACCURACY).details == ()
    assert json.loads(json.dumps(found.record()))["finished"] == [1, 1]


SPREAD = Spread(5, 10_000, seeds=5 * 0.0016**2, examples=10_000 * 0.0015**2)
FOUND = Verdict(
    NAMES, "test/accuracy", "points", "max", 5, (5, 5), (0.0124,) * 5, SPREAD, 0.94, p=0.01
)


def test_the_verdict_says_all_that_it_knows() -> None:
    assert str(FOUND) == (
        "The best configuration beats the defaults by +1.24 points of test accuracy (95% interval "
        "+0.77 to +1.71 over seeds and test examples, n = 5 paired seeds): the difference stands. "
        "Seeds make 53% of its variance (standard error 0.16 points), test examples 47% (0.15 "
        "points). The pairs correlate with r = +0.94. With n = 5, a true difference of 0.66 points "
        "would be found in about 8 of 10 cases. No number of seeds halves the interval: the test "
        "examples leave ± 0.29 points. The split into training and test examples is held fixed."
    )
    assert json.loads(json.dumps(FOUND.record()))["sentence"] == FOUND.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"best": "min"}, "The best configuration loses to the defaults by +1.24 points"),
        ({"best": None}, "): the difference stands."),
        ({"names": ("lr=0.1", "lr=0.2")}, "lr=0.1 beats lr=0.2 by +1.24"),
        ({"unit": "mm"}, "by +0.0124 mm of test accuracy (95% interval +0.0077 to +0.0171 over"),
        ({"unit": ""}, "by +0.0124 of test accuracy (95% interval"),
        ({"metric": "f1"}, "over seeds and examples, n"),
        ({"metric": "validation/loss"}, "over seeds and validation examples, n"),
        ({"alpha": 0.05 / 12}, "99.58% interval"),
        ({"alpha": 0.00005}, "99.995% interval"),
        ({"comparisons": 12}, "over seeds and test examples, adjusted after Holm for 12 comp"),
        ({"differences": (0.0,) * 5}, "): whether there is a difference cannot be told."),
        ({"differences": (0.004719,) * 5}, "95% interval +0.002 to +0.94"),
    ],
)
def test_the_sentence_follows_the_numbers(change: dict[str, Any], words: str) -> None:
    assert words in dataclasses.replace(FOUND, **change).sentence


SPREADS = st.builds(
    Spread,
    st.integers(3, 50),
    st.integers(2, 10_000),
    st.floats(1e-6, 10),
    st.floats(0, 10),
    st.floats(0, 10),
)


@given(SPREADS, st.floats(0.01, 5), st.sampled_from([0.05, 0.0005]))
def test_the_planned_number_of_seeds_is_the_fewest(
    spread: Spread, half_width: float, alpha: float
) -> None:
    n = spread.seeds_for(half_width, alpha)
    lasting = spread.planned_half_width(math.inf, alpha)
    if n is None:
        assert lasting >= half_width
        return
    assert spread.planned_half_width(n, alpha) <= half_width
    assert n == 3 or spread.planned_half_width(n - 1, alpha) > half_width


def test_a_plan_for_the_same_number_of_seeds_is_the_interval() -> None:
    found = verdict(*results(3, 6, 500, 0.5), **ACCURACY)
    assert found.spread
    assert found.spread.from_examples > 0
    assert found.spread.planned_half_width(6) == pytest.approx(found.half_width)


def test_no_number_of_seeds_removes_the_part_of_the_examples() -> None:
    spread = Spread(5, 10_000, seeds=5 * 0.046**2, examples=10_000 * 0.154**2)
    assert spread.planned_half_width(math.inf) == pytest.approx(0.302, abs=5e-4)
    assert spread.seeds_for(0.30) is None
    assert spread.seeds_for(0.31) == 9
    assert spread.over_seeds().planned_half_width(math.inf) == 0
    assert spread.over_seeds().half_width() == pytest.approx(stats.t.ppf(0.975, 4) * 0.046)


FAMILIES = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.4, 1.0])), min_size=1, max_size=8
)


@given(FAMILIES)
def test_an_adjusted_interval_holds_zero_where_holm_does_not_reject(
    family: list[tuple[int, float]],
) -> None:
    plain = [verdict(*results(seed, 5, 80, gap), **ACCURACY) for seed, gap in family]
    redrawn = adjusted([*plain, verdict([None], [None], **ACCURACY)])
    assert redrawn.pop().comparisons == 1
    tested = [one for one in redrawn if one.p is not None]
    alphas = holm_alphas([one.p for one in tested if one.p is not None])
    assert [one.alpha for one in tested] == alphas
    for one in tested:
        assert one.p is not None
        assume(abs(one.p - one.alpha) > 1e-9)
        assert one.comparisons == len(tested)
        assert (one.conclusion in ("better", "worse")) == (one.p <= one.alpha)


@pytest.mark.parametrize(
    ("n", "least", "most"), [(3, 0.92, 0.96), (5, 0.94, 0.96), (10, 0.94, 0.96)]
)
@pytest.mark.parametrize("seeds", [0.1, 0.5, 0.9])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(
    n: int, least: float, most: float, seeds: float
) -> None:
    repeats = 1000
    noise = 3 * math.sqrt(0.95 * 0.05 / repeats)
    found = coverage(Case(n, 100, seeds), repeats)
    assert least - noise < found.two_way < most + noise
    assert found.judged > 0.99
    assert found.found == pytest.approx(0.8, abs=0.06)
    if seeds < 0.9:
        assert found.seeds_only < found.two_way - noise


def test_several_comparisons_are_wrong_together_as_often_as_one() -> None:
    plain, holm = false_families(4, 5, 300, 300)
    assert holm < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300) < plain


def test_splits_of_small_data_are_covered() -> None:
    assert 0.88 < split_coverage(60, 5, 400) < 0.98


@pytest.mark.parametrize("seed_std", [0.0, 0.02])
def test_the_pigeonhole_bootstrap_is_conservative(seed_std: float) -> None:
    plain, corrected = pigeonhole_ratios(20, 2000, seed_std, 30)
    assert plain.min() >= 1
    assert corrected.min() >= plain.min()


@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(3, 10), st.integers(2, 10)),
        elements=st.integers(-1, 1).map(float),
    )
)
def test_with_its_divisor_corrected_the_bootstrap_is_never_less(differences: Array) -> None:
    found = verdict(differences, np.zeros_like(differences), **LOSS)
    assume(found.spread)
    assert found.spread
    assert corrected_pigeonhole_variance(found.spread) >= found.spread.variance()


@pytest.mark.parametrize("size", [(4, 7), (20, 30)])
def test_the_variance_of_the_bootstrap_is_that_of_resampling(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    differences = rng.standard_normal(size) + rng.standard_normal((size[0], 1))
    found = verdict(differences, np.zeros(size), **LOSS)
    assert found.spread
    expected = resampled_variance(differences, 40_000, rng)
    assert pigeonhole_variance(found.spread) == pytest.approx(expected, rel=0.05)
