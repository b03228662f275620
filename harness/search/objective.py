"""What a study optimises: metrics of a trial's last epoch, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.base.errors import BadRequest, nearest
from harness.base.goals import WAYS, Direction, Goal
from harness.base.metric_names import AVERAGE, RESERVED, SETS, Best

COSTS = ("system", "model", "time", "memory")
"""What stands before the slash of a cost: the lowest is best."""


@dataclass(frozen=True)
class Objective:
    """A metric that a study optimises, after the last epoch of each trial.

    Attributes:
        metric: such as `validation/accuracy`, `validation/loss`, `model/parameters`, or the name
            of an observation. Nothing of the test examples can be one.
        direction: `maximize` or `minimize`; by default the metric's own, and for costs `minimize`.

    Raises:
        BadRequest: the metric is one of the test examples, or there is no such direction.
    """

    metric: str
    direction: Direction | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise BadRequest(f"objective: expected the name of a metric, got {self.metric!r}.")
        if self.metric.partition("/")[0] == "test":
            raise BadRequest(
                f"objective: {self.metric} would select on the test set, which is looked at once, "
                f"at the end; use validation/{self.metric.partition('/')[2]}."
            )
        if self.direction not in (None, *WAYS.values()):
            raise BadRequest(
                f"objective: {self.direction!r} is no direction; use 'maximize' or 'minimize'."
            )


def goal_of(objective: Objective, directions: Mapping[str, Best | None]) -> Goal:
    """An objective with its direction, for an experiment.

    Args:
        directions: what is best for each metric of the experiment.

    Raises:
        BadRequest: the experiment has no such metric, or it has no direction of its own.
    """
    part, slash, name = objective.metric.partition("/")
    direction = objective.direction
    if part in SETS and slash:
        if name.startswith(AVERAGE) and name not in directions.keys() >= {name[len(AVERAGE) :]}:
            raise BadRequest(
                f"objective: {objective.metric} needs averaged weights: --average-weights "
                "last-epoch or ema."
            )
        if name not in directions:
            known = [f"validation/{known}" for known in directions]
            raise BadRequest(
                f"objective: there is no metric {objective.metric!r}. "
                f"{nearest(objective.metric, known)}"
            )
        best = directions[name]
        direction = direction or (WAYS[best] if best else None)
    elif part in COSTS:
        direction = direction or "minimize"
    elif part in RESERVED:
        raise BadRequest(f"objective: {objective.metric} cannot be one.")
    if direction is None:
        raise BadRequest(
            f"objective: {objective.metric} has no direction of its own; write "
            f"Objective({objective.metric!r}, 'maximize') or 'minimize'."
        )
    return Goal(objective.metric, direction)


def dominates(values: Sequence[float], others: Sequence[float], goals: Sequence[Goal]) -> bool:
    """Whether values are at least as good as others by every goal, and better by one."""
    pairs = [
        (goal.sign * value, goal.sign * other)
        for value, other, goal in zip(values, others, goals, strict=True)
    ]
    return all(value >= other for value, other in pairs) and pairs != [(o, o) for _, o in pairs]
