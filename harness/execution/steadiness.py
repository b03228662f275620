"""Whether the last epochs of a training jump, so that its result depends on where it stops."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from harness.base.formatting import metric_text
from harness.base.goals import usual_goal
from harness.base.metric_names import LOSS, judge
from harness.tracking.schema import DataRecord
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult

LAST_CHANGES = 5
"""The last changes from epoch to epoch that are looked at."""


def jump(
    experiment: Experiment, epochs: Sequence[EpochResult], data: Sequence[DataRecord]
) -> float | None:
    """The standard deviation of the last changes of what judges the run, if it is large.

    A steady rise has none. It is large if it exceeds the standard error of a difference of two such
    evaluations on fresh examples: then where the training stops matters more than which examples
    measure it. Below that nobody could tell. For a share p of m examples that is
    sqrt(2 p (1 - p) / m), with two hits and two misses added (Agresti and Coull, 1998) so that it
    is not 0 at p = 1; for a loss L, sqrt(2) times that of a mean square, L sqrt(2 / m). Of other
    metrics the scale is not known.

    Args:
        data: the sets of examples that the run saw.
    """
    name = _judged_by(experiment)
    part = judge(epochs[-1].metrics) if epochs else None
    last = [e.metrics.get(f"{part}/{name}", math.nan) for e in epochs[-LAST_CHANGES - 1 :]]
    size = next((d.size for d in data if d.context == part), 0)
    if len(last) <= LAST_CHANGES or not size or not all(map(math.isfinite, last)):
        return None
    mean = statistics.fmean(last)
    if name == LOSS:
        error = 2 * abs(mean) / math.sqrt(size)
    elif min(last) >= 0 and max(last) <= 1:
        share = (mean * size + 2) / (size + 4)
        error = math.sqrt(2 * share * (1 - share) / (size + 4))
    else:
        return None
    deviation = statistics.stdev(b - a for a, b in itertools.pairwise(last))
    return deviation if deviation > error else None


def jump_in_words(experiment: Experiment, deviation: float) -> str:
    """The line about a run whose last epochs jump; it names what has not been tried."""
    is_loss = _judged_by(experiment) == LOSS
    amount = f"{metric_text(deviation)} of loss" if is_loss else f"{100 * deviation:.1f} points"
    flags = ["--average-weights"] * (experiment.average_weights == "off")
    if not experiment.has_own_scheduler and experiment.schedule == "constant":
        flags.append("--schedule")
    advice = f"; see {', '.join(flags)}" if flags else ""
    return (
        f"the last epochs differ by {amount} (sd of the last {LAST_CHANGES} changes): the result "
        f"depends on where training stops{advice}"
    )


def _judged_by(experiment: Experiment) -> str:
    """The metric that judges a run, without the part of the data."""
    return usual_goal(experiment.directions()).metric.partition("/")[2]
