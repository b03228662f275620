"""Means with their uncertainty: no number without n and spread."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A sample of n values.

    Attributes:
        std: standard deviation with n - 1 in the denominator; nan for n = 1.
        low: lower end of the 95% interval of the mean; nan for n = 1.
        high: its upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.4f} (n = 1)"
        return (
            f"{self.mean:.4f} ± {self.std:.4f} (n = {self.n}, "
            f"95% interval {self.low:.4f} to {self.high:.4f})"
        )

    def metrics(self, name: str) -> dict[str, float]:
        """The summary as metrics below `name`; without spread where n is 1."""
        values = {f"{name}/n": float(self.n), f"{name}/mean": self.mean}
        if self.n > 1:
            values |= {f"{name}/std": self.std, f"{name}/low": self.low, f"{name}/high": self.high}
        return values


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and 95% interval of the mean by Student's t (n - 1 degrees).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to summarize")
    n, mean = len(values), sum(values) / len(values)
    if not math.isfinite(mean):  # one of the runs has diverged
        return Summary(n, mean, math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    # SciPy takes most of a second to import, and most commands need no interval.
    from scipy.stats import t

    std = statistics.stdev(values)
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def expected_maximum(values: Sequence[float]) -> list[tuple[float, float]]:
    """Mean and standard deviation of the largest of n draws, for n from 1 to `len(values)`.

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


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Summary:
    """The summary of first minus second, pair by pair (the same seed in both)."""
    return summarize([a - b for a, b in zip(first, second, strict=True)])
