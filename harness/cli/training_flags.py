"""The flags that `run` and `study` share."""

from __future__ import annotations

import dataclasses

from harness.cli.shared_flags import DataFlags
from harness.training.device import Execution


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFlags(DataFlags, Execution):
    """How to compute, on which data, with how much output."""

    quiet: bool = False
    """Print the result only."""

    def execution(self) -> Execution:
        """The part that says how to compute."""
        names = [field.name for field in dataclasses.fields(Execution)]
        return Execution(**{name: getattr(self, name) for name in names})
