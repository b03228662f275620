"""What a training or a study aims at: a metric, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.base.metric_names import Best

Direction = Literal["maximize", "minimize"]

WAYS: Mapping[Best, Direction] = {"max": "maximize", "min": "minimize"}


@dataclass(frozen=True)
class Goal:
    """A metric, such as `validation/accuracy`, with its direction."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> int:
        """1 if the highest value is best, -1 if the lowest is."""
        return 1 if self.direction == "maximize" else -1

    @property
    def best(self) -> Best:
        """The direction as metrics have it."""
        return "max" if self.direction == "maximize" else "min"

    @property
    def worst(self) -> float:
        """A value worse than all finite ones."""
        return -self.sign * math.inf


def usual_goal(directions: Mapping[str, Best | None]) -> Goal:
    """What a study optimises that does not say it: the metric that judges a run."""
    name, best = next((name, best) for name, best in directions.items() if best)
    return Goal(f"validation/{name}", WAYS[best])
