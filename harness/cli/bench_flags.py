"""The flags of `bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.base import fields
from harness.base.fields import Count, Threads
from harness.cli.shared_flags import DataFlags, default


@dataclass(frozen=True, kw_only=True)
class BenchSettings(DataFlags):
    """What to time, and how often."""

    dataset: Literal["fashion-mnist", "mnist", "kmnist"] = "fashion-mnist"
    """Data set to train on."""
    num_epochs: Annotated[int, Count] = 10
    """Epochs of each training."""
    rounds: Annotated[int, Count] = 3
    """Measurements of each kind; the kinds take turns."""
    threads: Annotated[int, Threads] = 0
    """CPU threads of torch, for the script and the harness alike; 0 means torch's own choice."""

    study: bool = False
    """Time a study against Optuna's usual loop around the plain script, instead of runs."""
    n_trials: Annotated[int, Count] = 30
    """Trials of each study."""
    usual_trials: Annotated[int | None, Count, default("INT", "--n-trials")] = None
    """Trials of the usual loop, which is slow."""

    compare: bool = False
    """Time the comparison of recorded runs, instead of runs."""
    n_runs: Annotated[int, Count] = 1000
    """Runs to compare."""

    def __post_init__(self) -> None:
        fields.check_all(self)
