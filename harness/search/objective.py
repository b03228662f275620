"""What a study optimises."""

from __future__ import annotations

from dataclasses import dataclass

from harness.base.trials import VALIDATION_ACCURACY, Direction


@dataclass(frozen=True)
class Objective:
    """A metric of a trial's last epoch, and which way is better."""

    metric: str = VALIDATION_ACCURACY
    direction: Direction = "maximize"


OBJECTIVE = Objective()
"""What every study optimises: nothing of the test images can be selected on."""
