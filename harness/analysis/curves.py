"""Learning curves of a comparison's rows: by epoch, mean and standard deviation over the seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

from harness.analysis.query import judged_on
from harness.analysis.rows import Row
from harness.base.formatting import number_of
from harness.figures.comparison_figures import MOST_CURVES, Curve, draw_comparison
from harness.tracking.reader import Reader


def draw_curves(
    rows: Sequence[Row], labels: Sequence[str], title: str, reader: Reader, kind: str
) -> bytes:
    """A picture of the first rows that have an objective: the course of every metric.

    Args:
        labels: tell the rows apart.
        kind: of the file: `png`, `svg` or `pdf`.

    Raises:
        BadRequest: none of the rows has an epoch.
    """
    judged = [(row, label) for row, label in zip(rows, labels, strict=True) if row.objective]
    shown = judged[:MOST_CURVES]
    examples = "; ".join(dict.fromkeys(judged_on(row.runs[0]) for row, _ in shown))
    some = f"the first {len(shown)} of {number_of(len(rows), 'row')}, "
    subtitle = f"{some if len(shown) < len(rows) else ''}{examples}"
    curves = curves_of([row for row, _ in shown], [label for _, label in shown], reader)
    return draw_comparison(curves, title, subtitle, kind)


def curves_of(rows: Sequence[Row], labels: Sequence[str], reader: Reader) -> list[Curve]:
    """The course of each row's objective, and of what else was measured on the same examples."""
    points = reader.history([run.run_id for row in rows for run in row.runs])
    values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for run_id, epoch, metric, value in points:
        values[run_id, metric][epoch] = value
    found = []
    for row, label in zip(rows, labels, strict=True):
        courses = {
            metric: _course([values[run.run_id, metric] for run in row.runs])
            for metric in row.judged
        }
        found.append(Curve(label, row.n, courses))
    return found


def _course(runs: Sequence[dict[int, float]]) -> list[tuple[int, float, float | None]]:
    """Epoch, mean and standard deviation (None for a single value); NaN counts nowhere."""
    course = []
    for epoch in sorted({epoch for run in runs for epoch in run}):
        found = [run[epoch] for run in runs if not math.isnan(run.get(epoch, math.nan))]
        if found:
            mean = sum(found) / len(found)
            finite = len(found) > 1 and math.isfinite(mean)
            course.append((epoch, mean, statistics.stdev(found) if finite else None))
    return course
