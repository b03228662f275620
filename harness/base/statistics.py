"""Means and differences with their uncertainty: no number without n and spread."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.formatting import metric_text

if TYPE_CHECKING:
    pass


Z95 = statistics.NormalDist().inv_cdf(0.975)
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""


@dataclass(frozen=True)
class Summary:
    """A sample of n values.

    Attributes:
        std: Standard deviation with n - 1 in the denominator; NaN for n = 1.
        low: Lower end of the 95% interval of the mean; NaN for n = 1.
        high: Upper end of that interval.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.n == 1:
            return f"{metric_text(self.mean)} (n = 1)"
        mean, std, low, high = map(metric_text, (self.mean, self.std, self.low, self.high))
        return f"{mean} ± {std} (n = {self.n}, 95% interval {low} to {high})"

    def metrics(self, name: str) -> dict[str, float]:
        """Return the summary as metrics below `name`, without the spread if n is 1."""
        values = {f"{name}/n": float(self.n), f"{name}/mean": self.mean}
        if self.n > 1:
            values |= {f"{name}/std": self.std, f"{name}/low": self.low, f"{name}/high": self.high}
        return values


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and 95% interval of the mean (Student's t, n - 1 degrees).

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values to summarize")
    n, mean = len(values), sum(values) / len(values)
    if not math.isfinite(mean):  # a run diverged
        return Summary(n, mean, math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    # scipy.stats takes most of a second to import. This is the function that it calls.
    from scipy.special import stdtrit

    std = statistics.stdev(values)
    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def expected_maximum(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return mean and standard deviation of the largest of n draws, for n up to `len(values)`.

    The draws are independent, with replacement, from the values themselves: the largest of n is at
    most the i-th smallest of N values with probability (i/N)^n. This is the expected validation
    performance of Dodge et al., Show Your Work: Improved Reporting of Experimental Results (EMNLP
    2019), section 3.
    """
    ordered, total = sorted(values), len(values)
    expected = []
    for n in range(1, total + 1):
        at_most = [(i / total) ** n for i in range(total + 1)]
        weights = [above - below for below, above in itertools.pairwise(at_most)]
        mean = math.fsum(map(operator.mul, weights, ordered))
        squares = ((value - mean) ** 2 for value in ordered)
        expected.append((mean, math.sqrt(math.fsum(map(operator.mul, weights, squares)))))
    return expected


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95% interval of the share `hits` of n > 0; both ends lie in [0, 1].

    Unlike the share ± 1.96 standard errors it never leaves [0, 1], and has a width even for a share
    of 0 or 1 (Wilson, Probable inference, the law of succession, and statistical inference, 1927).
    """
    share, square = hits / n, Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # Rounding must not leave a share of 0 or 1 outside its own interval.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test on paired yes-or-no results.

    If both were right equally often, each example on which one alone is right could as well be the
    other's: p is that of so uneven a split, or a more uneven one, of fair coins (McNemar, Note on
    the sampling error of the difference between correlated proportions or percentages, 1947).

    Args:
        only_first: examples on which only the first is right.
        only_second: those on which only the second is.
    """
    from scipy.special import bdtr

    fewer, n = min(only_first, only_second), only_first + only_second
    return min(1.0, 2 * float(bdtr(fewer, n, 0.5)))


def holm_alphas(p: Sequence[float], alpha: float = 0.05) -> list[float]:
    """Return the alpha at which Holm tests each of k hypotheses; it rejects where p is not above.

    The j-th smallest p is tested at alpha / (k - j + 1). From the first that is not rejected on,
    nothing is: all of those have the alpha of that one. An interval drawn at 1 - this alpha holds
    zero exactly where Holm does not reject. The chance of any false rejection is at most `alpha`
    (Holm, A simple sequentially rejective multiple test procedure, 1979).
    """
    alphas = [alpha] * len(p)
    level, is_open = alpha, True
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if is_open:
            level = alpha / (len(p) - rank)
            is_open = p[index] <= level
        alphas[index] = level
    return alphas


def holm_adjusted(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p: the smallest alpha for all hypotheses that rejects each of them."""
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
