"""The verdict on two configurations: is the one better, whichever seeds and examples are drawn?

Both are trained with the same seeds and judged on the same examples. Each pair of results, of one
seed on one example, has a difference; the verdict is about their mean. Seeds and examples are both
samples, and crossed: every seed meets every example.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from harness.base.formatting import capitalized, number_of
from harness.base.metric_names import SETS, Best
from harness.base.statistics import holm_alphas, mcnemar_p, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Results: TypeAlias = NDArray[Any] | float
    """Of one training: the value of each example, (m,), or of all together."""

    Pair: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

ALPHA = 0.05
"""The alpha of one comparison that is looked at once: its interval is the 95% one."""

FEWEST_SEEDS = 3
"""With fewer there is no interval over seeds."""

POINTS = "points"
"""The unit of a share, such as an accuracy, in hundredths."""

_ZERO = 1e-9
"""What is smaller than this, relative to the values, is what rounding leaves of a zero."""

Splits = Literal["fixed", "drawn"]
Conclusion = Literal["better", "worse", "different", "cannot be told apart", "no verdict"]


@dataclass(frozen=True)
class Spread:
    """Where the variance of a mean over n seeds and m examples comes from.

    With crossed random effects, the variance of the mean is
    seeds / n + examples / m - residual / (n m), and its degrees of freedom are Satterthwaite's
    (An approximate distribution of estimates of variance components, 1946). The last term is
    subtracted because each of the first two holds it once.

    Attributes:
        m: 0 if there are no values for single examples.
        seeds: the sample variance, over seeds, of the means over examples.
        examples: the sample variance, over examples, of the means over seeds.
        residual: the mean square of what both means leave over.
    """

    n: int
    m: int
    seeds: float
    examples: float = 0.0
    residual: float = 0.0

    def variance(self) -> float:
        """Of the mean; not positive if it cannot be estimated."""
        return self._of_mean(self.n, self.examples)[0]

    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of the variance."""
        return self._of_mean(self.n, self.examples)[1]

    def half_width(self, alpha: float = ALPHA) -> float | None:
        """Of the interval at 1 - alpha; None if the variance cannot be estimated.

        That is so if it is not positive, or so small a rest of larger terms that it has less than
        one degree of freedom.
        """
        variance, degrees = self._of_mean(self.n, self.examples)
        if degrees < 1 - _ZERO:
            return None
        return _quantile(1 - alpha / 2, degrees) * math.sqrt(variance)

    @property
    def from_seeds(self) -> float:
        """The part of the variance that falls as 1 / n."""
        return self.seeds / self.n

    @property
    def from_examples(self) -> float:
        """The part of the variance that no number of seeds removes."""
        return self._lasting / self.m if self.m else 0.0

    def over_seeds(self) -> Spread:
        """The spread without its examples: that about these examples and no others."""
        return Spread(self.n, 0, self.seeds)

    def planned_half_width(self, n: float, alpha: float = ALPHA) -> float:
        """The half width to expect of n seeds; `math.inf` seeds leave the examples' part."""
        variance, degrees = self._of_mean(n, self._lasting + self.residual / n)
        return _quantile(1 - alpha / 2, max(degrees, 1)) * math.sqrt(variance)

    def seeds_for(self, half_width: float, alpha: float = ALPHA) -> int | None:
        """The fewest seeds, from 3 on, to expect a half width of; None if no number is enough."""
        if self.planned_half_width(math.inf, alpha) >= half_width:
            return None
        high = FEWEST_SEEDS
        while self.planned_half_width(high, alpha) > half_width:
            high *= 2
        low = max(FEWEST_SEEDS - 1, high // 2)
        while high - low > 1:
            middle = (low + high) // 2
            if self.planned_half_width(middle, alpha) > half_width:
                low = middle
            else:
                high = middle
        return high

    @property
    def _lasting(self) -> float:
        """The variance over examples that remains with all seeds."""
        return max(0.0, self.examples - self.residual / self.n)

    def _of_mean(self, n: float, examples: float) -> tuple[float, float]:
        """The variance of the mean and its degrees of freedom, with n seeds."""
        m = self.m or math.inf
        terms = [
            (self.seeds / n, n - 1),
            (examples / m, m - 1),
            (-self.residual / (n * m), (n - 1) * (m - 1)),
        ]
        variance = math.fsum(term for term, _ in terms)
        size = math.fsum(abs(term) for term, _ in terms)
        if variance <= _ZERO * size:
            return 0.0, 0.0
        # Relative to the variance, so that no square of a small number is zero.
        return variance, 1 / math.fsum((t / variance) ** 2 / degrees for t, degrees in terms if t)


@dataclass(frozen=True)
class Verdict:
    """What is known of the difference between two configurations, the first minus the second.

    Attributes:
        names: of the two, as a sentence has them.
        metric: such as `test/accuracy`.
        unit: of the metric; a share in `points` is shown in hundredths.
        best: whether the highest or the lowest value is best; None if neither is.
        seeds: how many pairs were trained.
        finished: how many trainings of each configuration have a finite value.
        differences: of the pairs in which both have one.
        spread: of the mean difference; None with fewer than 3 pairs, if all differences are
            equal, and over the examples alone with one pair.
        correlation: of the pairs, over seeds; None with fewer than 3 or without spread.
        discordant: with one pair of yes-or-no results, the number of examples on which the first
            alone is right, and the second alone.
        p: two-sided, of Student's t at the interval's degrees of freedom, or of McNemar's exact
            test if there is one pair; None if there is no test.
        splits: whether the split into training and test examples is the same in all pairs.
        alpha: the interval is at 1 - alpha.
        comparisons: how many, adjusted after Holm, this is one of.
    """

    names: tuple[str, str]
    metric: str
    unit: str
    best: Best | None
    seeds: int
    finished: tuple[int, int]
    differences: tuple[float, ...]
    spread: Spread | None = None
    correlation: float | None = None
    discordant: tuple[int, int] | None = None
    p: float | None = None
    splits: Splits = "fixed"
    alpha: float = ALPHA
    comparisons: int = 1

    @property
    def n(self) -> int:
        """In how many pairs both trainings finished."""
        return len(self.differences)

    @property
    def difference(self) -> float | None:
        """The mean over the pairs that finished; None if none did."""
        return math.fsum(self.differences) / self.n if self.n else None

    @property
    def half_width(self) -> float | None:
        """Of the interval; None if there is none."""
        return self.spread.half_width(self.alpha) if self.spread else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference, at 1 - alpha, over seeds and examples; see `spread`."""
        if (half := self.half_width) is None or (mean := self.difference) is None:
            return None
        return mean - half, mean + half

    @property
    def conclusion(self) -> Conclusion:
        """What the first configuration is, compared with the second."""
        if self.n < FEWEST_SEEDS or not self.interval:
            return "no verdict"
        low, high = self.interval
        if low <= 0 <= high:
            return "cannot be told apart"
        if self.best is None:
            return "different"
        return "better" if (low > 0) == (self.best == "max") else "worse"

    @property
    def detectable(self) -> float | None:
        """The true difference that about 8 of 10 such comparisons would show.

        It is (t at 1 - alpha / 2 plus t at 0.8) standard errors (Bloom, Minimum detectable effects,
        1995).
        """
        if not self.spread or (half := self.half_width) is None:
            return None
        power = _quantile(0.8, self.spread.degrees())
        return half + power * math.sqrt(self.spread.variance())

    @property
    def seeds_to_halve(self) -> int | None:
        """How many seeds halve the interval; None if no number does, or there is none."""
        if not self.spread or (half := self.half_width) is None:
            return None
        return self.spread.seeds_for(half / 2, self.alpha)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, the same wherever it is given."""
        first, second = self.names
        if (mean := self.difference) is None:
            return _begun(f"{first} and {second} cannot be compared: no pair finished.")
        amount = f"{self._amount(mean, '+')} of {self._words}"
        differs = _begun(f"{first} differs from {second} by {amount}")
        if self.n == 1:
            return f"{differs} {self._about_one_pair()}"
        pairs = f"n = {self._pairs}"
        if self.n < FEWEST_SEEDS:
            return f"{differs} ({pairs}): no verdict, which takes {FEWEST_SEEDS} pairs or more."
        if self.spread is None:
            return (
                f"{differs} in each pair ({pairs}): a spread of zero makes no interval, and there "
                "is no verdict."
            )
        if not self.interval:
            return (
                f"{differs} ({pairs}): the estimate of its variance is not positive, or has less "
                "than one degree of freedom, and there is no verdict."
            )
        basis = f"({self._interval_text} {self._scope}{self._adjustment}, {pairs})"
        match self.conclusion:
            case "better":
                return _begun(f"{first} beats {second} by {amount} {basis}: the difference stands.")
            case "worse":
                return _begun(
                    f"{first} loses to {second} by {amount} {basis}: the difference stands."
                )
            case "different":
                return f"{differs} {basis}: the difference stands."
        return f"{differs} {basis}: whether there is a difference cannot be told."

    @property
    def details(self) -> tuple[str, ...]:
        """What a reader should know with the verdict, in short sentences."""
        return (
            *self._about_rates(),
            *(self._about_interval() if self.n >= FEWEST_SEEDS and self.interval else ()),
        )

    def __str__(self) -> str:
        return " ".join((self.sentence, *self.details))

    def record(self) -> dict[str, Any]:
        """The verdict as JSON and tables hold it, in the metric's own unit."""
        low, high = self.interval or (None, None)
        shown = self.spread if self.interval else None
        return {
            "n": self.n,
            "seeds": self.seeds,
            "finished": list(self.finished),
            "difference": self.difference,
            "low": low,
            "high": high,
            "alpha": self.alpha,
            "comparisons": self.comparisons,
            "p": self.p,
            "variance.seeds": shown and shown.from_seeds,
            "variance.examples": shown and shown.from_examples,
            "degrees": shown and shown.degrees(),
            "correlation": self.correlation,
            "detectable": self.detectable,
            "seeds_to_halve": self.seeds_to_halve,
            "splits": self.splits,
            "conclusion": self.conclusion,
            "sentence": self.sentence,
            "details": list(self.details),
        }

    @property
    def _pairs(self) -> str:
        if self.n < self.seeds:
            return f"{number_of(self.n, 'pair')} of {self.seeds}, those that finished"
        return number_of(self.n, "paired split" if self.splits == "drawn" else "paired seed")

    @property
    def _words(self) -> str:
        return self.metric.replace("/", " ")

    @property
    def _examples(self) -> str:
        part = self.metric.partition("/")[0]
        return f"{part} examples" if part in SETS else "examples"

    @property
    def _scope(self) -> str:
        if self.splits == "drawn":
            return "over splits"
        return f"over seeds and {self._examples}" if self._is_two_way else "over seeds only"

    @property
    def _is_two_way(self) -> bool:
        return bool(self.spread and self.spread.m)

    @property
    def _interval_text(self) -> str:
        assert self.interval
        low, high = self.interval
        level = f"{100 * (1 - self.alpha):.{4 if self.alpha > 1e-4 else 8}g}%"
        ends = f"{self._number(low, '+')} to {self._number(high, '+')}"
        return f"{level} interval {ends}"

    @property
    def _adjustment(self) -> str:
        k = self.comparisons
        return f", adjusted after Holm for {k} comparisons" if k > 1 else ""

    def _about_one_pair(self) -> str:
        rest = "whether the configurations differ cannot be told from one seed."
        if self.p is None:
            return f"(n = 1): {rest}"
        if self.discordant:
            only_first, only_second = self.discordant
            basis = (
                f"McNemar's exact test on the {self._examples}, {only_first:,} right in the first "
                f"alone and {only_second:,} in the second alone, p = {self.p:.2g}"
            )
        else:
            basis = f"{self._interval_text} over {self._examples}, p = {self.p:.2g}"
        found = "differ" if self.p <= self.alpha else "cannot be told apart either"
        return f"(n = 1; {basis}{self._adjustment}): these two trainings {found}; {rest}"

    def _about_rates(self) -> list[str]:
        found = []
        if min(self.finished) < self.seeds:
            for name, k in zip(self.names, self.finished, strict=True):
                found.append(_begun(f"{name} finished with {_rate(k, self.seeds)}."))
        if self.n >= FEWEST_SEEDS and self.spread is None and self.best and self.difference:
            is_better = (self.difference > 0) == (self.best == "max")
            rate = _rate(self.n if is_better else 0, self.n)
            found.append(_begun(f"{self.names[0]} is better with {rate}."))
        return found

    def _about_interval(self) -> list[str]:
        assert self.spread is not None
        assert self.detectable is not None
        spread, found = self.spread, []
        if self._is_two_way:
            seeds, examples = spread.from_seeds, spread.from_examples
            share = seeds / (seeds + examples)
            found.append(
                f"Seeds make {share:.0%} of its variance (standard error "
                f"{self._amount(math.sqrt(seeds))}), {self._examples} {1 - share:.0%} "
                f"({self._amount(math.sqrt(examples))})."
            )
        elif self.splits == "drawn":
            found.append(
                "Each pair has a split of its own: the interval covers splits, seeds and examples, "
                "and is a little narrow because the splits share most training examples."
            )
        else:
            found.append(
                f"There are no values for single examples: about other {self._examples} the "
                "interval says nothing."
            )
        if self.correlation is not None:
            found.append(f"The pairs correlate with r = {self.correlation:+.2f}.")
        found.append(
            f"With n = {self.n}, a true difference of {self._amount(self.detectable)} would be "
            "found in about 8 of 10 cases."
        )
        repeat = "split" if self.splits == "drawn" else "seed"
        if more := self.seeds_to_halve:
            found.append(f"{number_of(more, repeat)} would halve the interval.")
        else:
            rest = self._amount(spread.planned_half_width(math.inf, self.alpha))
            found.append(
                f"No number of seeds halves the interval: the {self._examples} leave ± {rest}."
            )
        if self.splits == "fixed":
            found.append("The split into training and test examples is held fixed.")
        return found

    def _amount(self, value: float, sign: str = "") -> str:
        return f"{self._number(value, sign)} {self.unit}".rstrip()

    def _number(self, value: float, sign: str = "") -> str:
        """A number with so many digits that the interval's half width has two."""
        scale, fewest = (100, 2) if self.unit == POINTS else (1, 4)
        value *= scale
        width = scale * (self.half_width or max(map(abs, self.differences), default=0.0))
        digits = fewest
        if width:
            digits = max(0 if width >= 1000 else fewest, 1 - math.floor(math.log10(width)))
        if value:  # An end that is not zero must not look like it: zero is what matters here.
            digits = max(digits, min(digits + 6, -math.floor(math.log10(abs(value)))))
        is_plain = digits <= 12 and abs(value) < 1e7
        return f"{value:{sign},.{digits}f}" if is_plain else f"{value:{sign}.3g}"


def verdict(
    first: Sequence[Results | None] | NDArray[Any],
    second: Sequence[Results | None] | NDArray[Any],
    *,
    best: Best | None,
    metric: str,
    unit: str = "",
    names: tuple[str, str] = ("the first", "the second"),
    splits: Splits = "fixed",
    alpha: float = ALPHA,
) -> Verdict:
    """Compare two configurations, trained with the same seeds and judged on the same examples.

    The interval is over seeds and examples (see `Spread`) if all trainings have values for single
    examples. If they do not, it is over seeds only; if each pair has a split of its own, the
    examples differ from pair to pair, and it is over the pairs.

    Args:
        first: for each seed, the results of the first configuration: the value of each example,
            0 or 1 for yes or no, or one number for all together; None if the training diverged.
            A value that is not finite counts as diverged.
        second: those of the second configuration, with the same seeds in the same order.
        best: whether the highest or the lowest value is best; None if neither is.
        metric: such as `test/accuracy`.
        unit: of the metric; `points` shows a share in hundredths.
        names: of the configurations, as a sentence has them.
        splits: `drawn` if each pair has another split into training and test examples.
        alpha: the interval is at 1 - alpha.

    Raises:
        ValueError: there are not as many seeds in both, or not the same number of examples.
    """
    import numpy as np

    if len(first) != len(second):
        raise ValueError(f"seeds cannot be paired: {len(first)} and {len(second)}")
    sides = [_finite(results) for results in first], [_finite(results) for results in second]
    pairs = [(a, b) for a, b in zip(*sides, strict=True) if a is not None and b is not None]
    pairs = _on_same_examples(pairs, splits)
    finished = tuple(sum(results is not None for results in side) for side in sides)
    found = Verdict(
        names=names,
        metric=metric,
        unit=unit,
        best=best,
        seeds=len(first),
        finished=(finished[0], finished[1]),
        differences=tuple(float((a - b).mean()) for a, b in pairs),
        splits=splits,
        alpha=alpha,
    )
    if found.n == 1:
        return _about_examples(found, *pairs[0])
    means = np.array([[a.mean(), b.mean()] for a, b in pairs])
    if found.n < FEWEST_SEEDS or _is_constant(found.differences, means):
        return found
    spread = _spread(np.stack([a - b for a, b in pairs]))
    return _tested(found, spread, correlation=_correlation(means))


def adjusted(verdicts: Sequence[Verdict], alpha: float = ALPHA) -> list[Verdict]:
    """Several comparisons with one reference, adjusted after Holm.

    Each interval is drawn at the level at which Holm tests its difference, so that it holds zero
    exactly where Holm does not reject. A comparison without a test is left as it is.
    """
    tests = [index for index, found in enumerate(verdicts) if found.p is not None]
    alphas = holm_alphas([p for found in verdicts if (p := found.p) is not None], alpha)
    redrawn = list(verdicts)
    for index, level in zip(tests, alphas, strict=True):
        redrawn[index] = dataclasses.replace(verdicts[index], alpha=level, comparisons=len(tests))
    return redrawn


def _finite(results: Results | None) -> NDArray[np.float64] | None:
    """The results as an array (m,), or (1,) without examples; None if one is not finite."""
    import numpy as np

    if results is None:
        return None
    values = np.atleast_1d(np.asarray(results, dtype=np.float64))
    if values.ndim > 1 or not values.size:
        raise ValueError(f"expected the results of one training, (m,), got {values.shape}")
    return values if np.isfinite(values).all() else None


def _on_same_examples(pairs: Sequence[Pair], splits: Splits) -> list[Pair]:
    """The pairs with results on single examples, or else with the means alone.

    Raises:
        ValueError: the results are not on the same number of examples.
    """
    sizes = [{part.size for part in pair} - {1} for pair in pairs]
    for same in sizes if splits == "drawn" else [set[int]().union(*sizes)]:
        if len(same) > 1:
            raise ValueError(f"results on different numbers of examples: {sorted(same)}")
    if splits == "fixed" and len({part.size for pair in pairs for part in pair}) == 1:
        return list(pairs)
    return [(a.mean(keepdims=True), b.mean(keepdims=True)) for a, b in pairs]


def _about_examples(
    found: Verdict, first: NDArray[np.float64], second: NDArray[np.float64]
) -> Verdict:
    """What a single pair of trainings tells, about itself only."""
    import numpy as np

    if first.size == 1:
        return found
    if np.isin((first, second), (0, 1)).all():
        discordant = int((first > second).sum()), int((first < second).sum())
        return dataclasses.replace(found, discordant=discordant, p=mcnemar_p(*discordant))
    differences = first - second
    if _is_constant(differences, np.stack([first, second])):
        return found
    return _tested(found, Spread(1, first.size, 0.0, float(differences.var(ddof=1))))


def _spread(differences: NDArray[np.float64]) -> Spread:
    """That of the mean of differences (n, m)."""
    import numpy as np

    n, m = differences.shape
    by_seed: NDArray[np.float64] = np.mean(differences, axis=1)
    seeds = float(by_seed.var(ddof=1))
    if m == 1:
        return Spread(n, 0, seeds)
    by_example: NDArray[np.float64] = np.mean(differences, axis=0)
    left = differences - by_seed[:, None] - by_example + by_seed.mean()
    residual = float((left**2).sum()) / ((n - 1) * (m - 1))
    return Spread(n, m, seeds, float(by_example.var(ddof=1)), residual)


def _is_constant(values: Sequence[float] | NDArray[np.float64], scale: NDArray[np.float64]) -> bool:
    """Whether the values, differences of those in `scale`, are equal but for rounding."""
    import numpy as np

    return bool(np.ptp(values) <= _ZERO * np.abs(scale).max())


def _correlation(means: NDArray[np.float64]) -> float | None:
    """That of the pairs (n, 2); None if one side has no spread."""
    if any(_is_constant(side, side) for side in means.T):
        return None
    return statistics.correlation(*means.T.tolist())


def _tested(found: Verdict, spread: Spread, correlation: float | None = None) -> Verdict:
    """With the spread of the difference, and p if its variance can be estimated."""
    from scipy.special import stdtr

    found = dataclasses.replace(found, spread=spread, correlation=correlation)
    if found.half_width is None or found.difference is None:
        return found
    t = abs(found.difference) / math.sqrt(spread.variance())
    return dataclasses.replace(found, p=2 * float(stdtr(spread.degrees(), -t)))


def _quantile(probability: float, degrees: float) -> float:
    """That of Student's t."""
    # scipy.stats takes most of a second to import. This is the function that it calls.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def _begun(text: str) -> str:
    """The text as a sentence begins, unless a name does, such as lr=0.1."""
    return capitalized(text) if text.startswith("the ") else text


def _rate(k: int, n: int) -> str:
    low, high = wilson_interval(k, n)
    return f"{k} of {number_of(n, 'seed')} (95% Wilson interval {low:.0%} to {high:.0%})"
