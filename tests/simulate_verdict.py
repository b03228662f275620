"""Simulates the verdict where the true difference is known, and prints tables.

    python tests/simulate_verdict.py --repeats 10000

Coverage of the two-way interval with known variances and with yes-or-no results; the pigeonhole
bootstrap; several comparisons; several looks; splits of small data. Takes some minutes. Ends with 1
where a promise is broken.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.base.looks import LOOKS
from harness.base.statistics import holm_adjusted, holm_alphas, mcnemar_p
from harness.base.verdict import ALPHA, Spread, Verdict, adjusted, verdict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Differences of n seeds on m examples, whose mean has a variance of 1 in three parts.

    Attributes:
        seeds: the share of the variance that comes from seeds; the rest is from examples.
        residual: variance of each seed on each example, as a share of the variance of the mean.
    """

    n: int
    m: int
    seeds: float
    residual: float = 0.1

    @property
    def effects(self) -> tuple[float, float, float]:
        """The variances of seeds, of examples, and of what is left."""
        rest = 1 - self.residual
        n, m = self.n, self.m
        return rest * self.seeds * n, rest * (1 - self.seeds) * m, self.residual * n * m

    @property
    def spread(self) -> Spread:
        """The mean squares to expect."""
        of_seeds, of_examples, residual = self.effects
        n, m = self.n, self.m
        return Spread(n, m, of_seeds + residual / m, of_examples + residual / n, residual)

    def draw(self, rng: np.random.Generator) -> Array:
        """Differences (n, m) with a true mean of zero."""
        stds: Array = np.sqrt(np.array(self.effects))
        drawn: Array = stds[2] * rng.standard_normal((self.n, self.m))
        drawn += stds[0] * rng.standard_normal((self.n, 1))
        drawn += stds[1] * rng.standard_normal(self.m)
        return drawn


@dataclass(frozen=True)
class Coverage:
    """How often intervals hold the true difference, and what they find.

    Attributes:
        judged: the share of draws that have a verdict.
        two_way: the share of those whose interval holds the true difference.
        seeds_only: the same of the interval over seeds, which forgets the examples.
        found: the share that shows a true difference of the size called detectable.
    """

    judged: float
    two_way: float
    seeds_only: float
    found: float


def judged(differences: Array, **options: Any) -> Verdict:
    """The verdict on differences (n, m)."""
    options = {"best": "max", "metric": "test/score"} | options
    return verdict(differences, np.zeros_like(differences), **options)


def coverage(case: Case, repeats: int, seed: int = 0) -> Coverage:
    """Of the two-way interval, for a case with known variances."""
    rng = np.random.default_rng(seed)
    expected = Verdict(
        ("", ""), "", "", None, case.n, (case.n, case.n), (0.0,) * case.n, case.spread
    )
    assert expected.detectable
    counts = np.zeros(4)
    for _ in range(repeats):
        found = judged(case.draw(rng))
        assert found.spread is not None
        assert found.difference is not None
        over_seeds = found.spread.over_seeds().half_width()
        assert over_seeds is not None
        counts[2] += abs(found.difference) <= over_seeds
        if (half := found.half_width) is not None:
            counts[0] += 1
            counts[1] += abs(found.difference) <= half
            counts[3] += abs(found.difference + expected.detectable) > half
    n = int(counts[0])
    return Coverage(n / repeats, counts[1] / n, counts[2] / repeats, counts[3] / n)


def answers(
    rng: np.random.Generator, configurations: int, n: int, m: int, seed_std: float
) -> NDArray[np.bool_]:
    """Yes-or-no results (c, n, m) of equally good configurations on examples of their own each.

    The configurations find the same examples hard, but not quite; a seed makes all examples a
    little harder or easier.
    """
    hard = rng.standard_normal(m) + 0.2 * rng.standard_normal((configurations, 1, m))
    seeds = seed_std * rng.standard_normal((configurations, n, 1))
    noise = 0.3 * rng.standard_normal((configurations, n, m))
    return np.asarray(hard + seeds + noise < 1.1)


def false_verdicts(n: int, m: int, seed_std: float, repeats: int, seed: int = 0) -> float:
    """How often two equally good configurations are told apart by yes-or-no results."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(repeats):
        first, second = answers(rng, 2, n, m, seed_std)
        found = verdict(first, second, best="max", metric="test/accuracy", unit="points")
        wrong += found.conclusion in ("better", "worse")
    return wrong / repeats


def false_families(k: int, n: int, m: int, repeats: int, seed: int = 0) -> tuple[float, float]:
    """How often any of k comparisons with a reference is wrong: as they are, and after Holm."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(2)
    for _ in range(repeats):
        reference, *others = answers(rng, k + 1, n, m, 0.02)
        found = [verdict(other, reference, best="max", metric="test/accuracy") for other in others]
        for index, verdicts in enumerate((found, adjusted(found))):
            wrong[index] += any(one.conclusion in ("better", "worse") for one in verdicts)
    return wrong[0] / repeats, wrong[1] / repeats


def pigeonhole_variance(spread: Spread) -> float:
    """The variance of the mean under the pigeonhole bootstrap (Owen 2007), without resampling.

    It draws n rows and m columns with replacement. As any bootstrap it divides squares by n, not
    by n - 1.
    """
    n, m = spread.n, spread.m
    return (
        spread.seeds * (n - 1) / n**2
        + spread.examples * (m - 1) / m**2
        + spread.residual * (n - 1) * (m - 1) / (n * m) ** 2
    )


def corrected_pigeonhole_variance(spread: Spread) -> float:
    """The same with n - 1: the two-way estimate and two residuals more, so never smaller."""
    n, m = spread.n, spread.m
    return spread.seeds / n + spread.examples / m + spread.residual / (n * m)


def resampled_variance(differences: Array, repeats: int, rng: np.random.Generator) -> float:
    """The variance of the mean under the pigeonhole bootstrap, by resampling."""
    n, m = differences.shape
    rows = rng.multinomial(n, np.full(n, 1 / n), size=repeats)
    columns = rng.multinomial(m, np.full(m, 1 / m), size=repeats)
    means = np.einsum("rn,nm,rm->r", rows, differences, columns, optimize=True) / (n * m)
    return float(means.var())


def pigeonhole_ratios(
    n: int, m: int, seed_std: float, repeats: int, seed: int = 0
) -> tuple[Array, Array]:
    """The bootstrap's variance over the two-way one, as it is and corrected, draw by draw."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(repeats):
        first, second = answers(rng, 2, n, m, seed_std)
        spread = verdict(first, second, best="max", metric="test/accuracy").spread
        assert spread is not None
        variance = spread.variance()
        if variance > 0:
            ratios.append(
                (
                    pigeonhole_variance(spread) / variance,
                    corrected_pigeonhole_variance(spread) / variance,
                )
            )
    plain, corrected = np.array(ratios).T
    return plain, corrected


def false_looks(alphas: dict[int, float], repeats: int, seed: int = 0) -> float:
    """How often equal configurations are told apart by looking and stopping when pleased."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(repeats):
        drawn = rng.standard_normal((max(alphas), 1))
        wrong += any(
            judged(drawn[:n], alpha=alpha).conclusion in ("better", "worse")
            for n, alpha in alphas.items()
        )
    return wrong / repeats


def split_coverage(size: int, k: int, repeats: int, seed: int = 0) -> float:
    """Of the interval over k splits: least squares with and without three of ten features."""
    rng = np.random.default_rng(seed)
    weights = 0.4 * np.linspace(-1, 1, 10)

    def fitted(x: Array, y: Array, used: int) -> Array:
        known = x[:, :used]
        solved = np.linalg.solve(known.T @ known + 0.1 * np.eye(used), known.T @ y)
        return np.concatenate((solved, np.zeros(10 - used)))

    def drawn(n: int) -> tuple[Array, Array]:
        x = rng.standard_normal((n, 10))
        return x, x @ weights + rng.standard_normal(n)

    def risks() -> Array:
        x, y = drawn(size - size // k)
        return np.array([((fitted(x, y, used) - weights) ** 2).sum() for used in (10, 7)])

    truth = float(np.mean([(pair := risks())[0] - pair[1] for _ in range(4 * repeats)]))
    hits = 0
    for _ in range(repeats):
        x, y = drawn(size)
        losses: list[list[Array]] = [[], []]
        for part in np.array_split(rng.permutation(size), k):
            rest = np.setdiff1d(np.arange(size), part)
            for side, used in zip(losses, (10, 7), strict=True):
                side.append((y[part] - x[part] @ fitted(x[rest], y[rest], used)) ** 2)
        found = verdict(*losses, best="min", metric="test/loss", splits="drawn").interval
        assert found is not None
        hits += found[0] <= truth <= found[1]
    return hits / repeats


def table(title: str, header: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Print a table, row by row as it is computed."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n| {' | '.join('---' for _ in header)} |")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> int:
    """Print all tables; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=10_000)
    repeats: int = parser.parse_args().repeats
    broken: list[str] = []
    # Two standard errors of a coverage of 95%.
    noise = 2 * math.sqrt(0.95 * 0.05 / repeats)

    def promise(is_kept: bool, words: str) -> str:
        if not is_kept:
            broken.append(words)
        return "yes" if is_kept else "NO"

    def covered() -> Iterator[Sequence[str]]:
        for n in (3, 5, 10, 20):
            low, high = (0.92, 0.96) if n == 3 else (0.94, 0.96)
            for seeds in (0.1, 0.5, 0.9):
                found = coverage(Case(n, 1000, seeds), repeats)
                is_kept = low - noise <= found.two_way <= high + noise
                yield (
                    *(f"{n}", f"{seeds:.0%}", f"{found.two_way:.1%}", f"{found.seeds_only:.1%}"),
                    *(f"{found.judged:.2%}", f"{found.found:.0%}"),
                    promise(is_kept, f"coverage at n = {n}, {seeds:.0%} from seeds"),
                )

    def answered() -> Iterator[Sequence[str]]:
        for n in (3, 5, 10):
            for seed_std in (0.0, 0.02, 0.1):
                wrong = false_verdicts(n, 2000, seed_std, repeats)
                most = (0.08 if n == 3 else 0.06) + noise
                yield (
                    *(f"{n}", f"{seed_std}", f"{wrong:.1%}"),
                    promise(wrong <= most, f"yes or no at n = {n}, {seed_std}"),
                )

    def bootstrapped() -> Iterator[Sequence[str]]:
        for n in (5, 20, 40):
            for seed_std in (0.0, 0.02, 0.5):
                plain, corrected = pigeonhole_ratios(n, 2000, seed_std, repeats // 10)
                # Its squares are divided by n: where seeds make up all, it is (n - 1) / n.
                least = (n - 1) / n if seed_std == 0.5 else 1.0
                yield (
                    *(f"{n}", f"{seed_std}"),
                    *(f"{ratio:.3f}" for ratio in (plain.min(), np.median(plain))),
                    *(f"{ratio:.3f}" for ratio in (corrected.min(), np.median(corrected))),
                    promise(
                        (n < 20 or plain.min() >= least) and corrected.min() >= 1,
                        f"the bootstrap at n = {n}, {seed_std}",
                    ),
                )

    def several() -> Iterator[Sequence[str]]:
        for k in (2, 4, 12):
            plain, holm = false_families(k, 5, 1000, repeats // 4)
            most = ALPHA + 0.01 + 2 * noise
            yield f"{k}", f"{plain:.1%}", f"{holm:.1%}", promise(holm <= most, f"Holm, k = {k}")

    def looked() -> Iterator[Sequence[str]]:
        once, thrice = {20: ALPHA}, dict.fromkeys(LOOKS, ALPHA)
        for words, alphas in (("one look", once), ("0.05 each", thrice), ("LOOKS", LOOKS)):
            wrong = false_looks(alphas, repeats)
            yield (
                words,
                f"{wrong:.1%}",
                promise(words == "0.05 each" or wrong < 0.06 + noise, words),
            )

    def split() -> Iterator[Sequence[str]]:
        for size in (60, 200):
            for k in (5, 10):
                hits = split_coverage(size, k, repeats // 5)
                yield f"{size}", f"{k}", f"{hits:.1%}"

    print(f"{repeats:,} draws a row; two standard errors of a coverage: {noise:.1%}")
    header: tuple[str, ...] = (
        "n",
        "from seeds",
        "two-way",
        "seeds only",
        "judged",
        "found",
        "as promised",
    )
    table("Coverage, known variances, m = 1,000", header, covered())
    header = ("n", "seeds' sd", "told apart", "as promised")
    table("Equal configurations, yes or no, m = 2,000", header, answered())
    header = ("n", "seeds' sd", "least", "median", "least, n - 1", "median, n - 1", "as promised")
    table("Pigeonhole bootstrap over two-way variance, m = 2,000", header, bootstrapped())
    header = ("comparisons", "any wrong", "after Holm", "as promised")
    table("Equal configurations and one reference, n = 5", header, several())
    table("Looks after 5, 10 and 20 seeds", ("alphas", "told apart", "as promised"), looked())
    table("Intervals over K splits of small data", ("examples", "K", "coverage"), split())
    print(f"\n{agreement(repeats)}")
    print(f"\n{'broken: ' + '; '.join(broken) if broken else 'Every promise is kept.'}")
    return 1 if broken else 0


def agreement(repeats: int) -> str:
    """In words, whether McNemar and Holm agree with statsmodels."""
    try:
        from statsmodels.stats.contingency_tables import mcnemar
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        return "statsmodels is not installed: McNemar and Holm were not compared with it."
    rng = np.random.default_rng(0)
    apart = 0.0
    others = 0
    for _ in range(repeats // 10):
        first, second = (int(count) for count in rng.integers(0, 400, size=2))
        apart = max(
            apart,
            abs(mcnemar([[0, first], [second, 0]], exact=True).pvalue - mcnemar_p(first, second)),
        )
        p = list(NormalDist().cdf(float(z)) for z in rng.normal(-2, 1, size=rng.integers(1, 13)))
        rejected, corrected, *_ = multipletests(p, method="holm")
        ours = [one <= alpha for one, alpha in zip(p, holm_alphas(p), strict=True)]
        others += ours != list(rejected)
        apart = max(apart, float(np.abs(np.array(holm_adjusted(p)) - corrected).max()))
    return f"statsmodels: largest difference of a p {apart:.1e}, {others} other rejections."


if __name__ == "__main__":
    raise SystemExit(main())
