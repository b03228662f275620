"""Each row minus a reference row, seed by seed: how large the difference is, and how certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.query import data_seen
from harness.analysis.rows import Row
from harness.base.errors import BadRequest
from harness.base.metric_names import Best
from harness.base.statistics import FEWEST_PAIRS, Summary, paired_difference, sign_flip_p

LEVEL = 0.05
"""A difference with p at or below this is called better or worse."""


@dataclass(frozen=True)
class SeedDifference:
    """A row minus the reference, over the seeds that both have.

    Attributes:
        best: whether the highest or the lowest value of the metric is best.
        summary: of the differences; None if there is none.
        p: of the sign-flip test, two-sided.
        reason: why there is no difference.
    """

    best: Best | None
    summary: Summary | None = None
    p: float | None = None
    reason: str = "no shared seeds"

    @property
    def verdict(self) -> str:
        """In words, whether the row is better than the reference."""
        if self.summary is None or self.p is None:
            return self.reason
        if self.summary.n < FEWEST_PAIRS:
            return f"n = {self.summary.n} is too small"
        if self.p > LEVEL:
            return "cannot be told apart"
        return "better" if (self.summary.mean > 0) == (self.best == "max") else "worse"

    def record(self) -> dict[str, Any]:
        """The difference by column."""
        summary = self.summary
        spread = summary if summary and summary.n > 1 else None
        return {
            "pairs": summary.n if summary else 0,
            "difference": summary.mean if summary else None,
            "difference.low": spread and spread.low,
            "difference.high": spread and spread.high,
            "p": self.p,
            "verdict": self.verdict,
        }


def differences(rows: Sequence[Row], reference: Row) -> list[SeedDifference | None]:
    """Each row's difference from the reference; None for the reference itself.

    Raises:
        BadRequest: the reference has no metric to compare.
    """
    metric = reference.objective
    if metric is None:
        raise BadRequest(f"against: {reference.label} has no metric to compare by.")
    return [None if row is reference else _difference(row, reference, metric) for row in rows]


def _difference(row: Row, reference: Row, metric: str) -> SeedDifference:
    best = reference.best_of(metric)
    if data_seen(row.runs[0]) != data_seen(reference.runs[0]):
        return SeedDifference(best, reason="other examples")
    if row.runs[0].code_differs(reference.runs[0]):
        return SeedDifference(best, reason="other code")
    values, others = row.by_seed(metric), reference.by_seed(metric)
    shared = sorted(values.keys() & others.keys())
    if not shared:
        return SeedDifference(best)
    summary = paired_difference(
        [values[seed] for seed in shared], [others[seed] for seed in shared]
    )
    return SeedDifference(
        best, summary, sign_flip_p([values[seed] - others[seed] for seed in shared])
    )


def reference_among(rows: Sequence[Row], name: str, run_ids: set[str]) -> Row | None:
    """The row that holds one of the runs, or else the row with that label; None if no row does.

    If the runs of an unfinished group are in several rows, it is the row with most of them.

    Raises:
        BadRequest: several rows match.
    """
    found = [row for row in rows if row.holds(run_ids)]
    if all(str(run.parent).startswith(name) for row in found for run in row.runs):
        found = sorted(found, key=lambda row: -row.n)[:1]
    found = found or [row for row in rows if row.label == name]
    if len(found) > 1:
        ids = ", ".join(f"{row.short_id} ({row.label})" for row in found[:5])
        raise BadRequest(f"against: {len(found)} rows are called {name!r}; choose one: {ids}")
    return found[0] if found else None
