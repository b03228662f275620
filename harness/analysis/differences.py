"""Each row minus a reference row, seed by seed: one verdict, the same wherever it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.query import data_seen
from harness.analysis.rows import Row
from harness.base.errors import BadRequest
from harness.base.example_results import ExampleResults
from harness.base.metric_names import Best
from harness.base.verdict import POINTS, Verdict, adjusted, verdict
from harness.tracking.reader import Reader
from harness.tracking.schema import StoredRun, examples_file

if TYPE_CHECKING:
    from harness.base.verdict import Results

CALLED = {"best": "the best configuration", "defaults": "the defaults"}
"""What a sentence calls the configurations that a study confirms."""


@dataclass(frozen=True)
class Difference:
    """A row minus the reference, over the seeds that both have.

    Attributes:
        verdict: None if the rows cannot be compared.
        reason: why not.
    """

    verdict: Verdict | None = None
    reason: str = "no shared seeds"

    def record(self) -> dict[str, Any]:
        """The difference by column."""
        low, high = (self.verdict and self.verdict.interval) or (None, None)
        return {
            "pairs": self.verdict.n if self.verdict else 0,
            "difference": self.verdict and self.verdict.difference,
            "difference.low": low,
            "difference.high": high,
            "p": self.verdict and self.verdict.p,
            "verdict": self.verdict.conclusion if self.verdict else self.reason,
        }


def differences(rows: Sequence[Row], reference: Row, reader: Reader) -> list[Difference | None]:
    """Each row's difference from the reference; None for the reference itself.

    Several are adjusted after Holm.

    Raises:
        BadRequest: the reference has no metric to compare.
    """
    metric = reference.objective
    if metric is None:
        raise BadRequest(f"against: {reference.label} has no metric to compare by.")
    found = [
        None if row is reference else _difference(row, reference, metric, reader) for row in rows
    ]
    redrawn = iter(adjusted([one.verdict for one in found if one and one.verdict]))
    return [Difference(next(redrawn)) if one and one.verdict else one for one in found]


def _difference(row: Row, reference: Row, metric: str, reader: Reader) -> Difference:
    if data_seen(row.runs[0]) != data_seen(reference.runs[0]):
        return Difference(reason="other examples")
    if row.runs[0].code_differs(reference.runs[0]):
        return Difference(reason="other code")
    found = between(
        *(
            {run.seed: results_of(run, metric, reader) for run in one.runs if run.seed is not None}
            for one in (row, reference)
        ),
        metric=metric,
        best=reference.best_of(metric),
        names=(_called(row), _called(reference)),
    )
    return Difference(found) if found else Difference()


def between(
    first: Mapping[int, Results | None],
    second: Mapping[int, Results | None],
    *,
    metric: str,
    best: Best | None,
    names: tuple[str, str],
) -> Verdict | None:
    """The verdict on two configurations; None if they share no seed.

    Args:
        first: the results of the first one's trainings, by seed; see `results_of`.
        second: those of the second one's.
        names: of the configurations, as a sentence has them.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    return verdict(
        [first[seed] for seed in seeds],
        [second[seed] for seed in seeds],
        best=best,
        metric=metric,
        unit=POINTS if metric.endswith("/accuracy") else "",
        names=names,
    )


def results_of(run: StoredRun, metric: str, reader: Reader) -> Results | None:
    """The results of a run on single examples, or its metric alone; None if it has not finished."""
    value = run.metrics.get(metric)
    if run.outcome == "diverged" or value is None:
        return None
    content = reader.artifact(run.run_id, examples_file(metric))
    if content is None:
        return value
    try:
        found = ExampleResults.decode(content, run.data.get(metric.partition("/")[0]))
    except ValueError as error:
        warnings.warn(
            f"{examples_file(metric)} of {run.run_id}: {error}; its mean alone is used.",
            stacklevel=2,
        )
        return value
    return found.values


def _called(row: Row) -> str:
    return CALLED.get(row.label, row.label) if row.latest.kind == "confirm" else row.label


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
