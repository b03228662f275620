"""The flags of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from harness.base import fields
from harness.base.fields import Count, NonNegative


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What to time, and how often."""

    dataset: Literal["fashion-mnist", "mnist", "kmnist"] = "fashion-mnist"
    """Data set to train on."""
    data_root: Path | None = None
    """Folder of the data sets; HARNESS_DATA_ROOT, or data in the project, unless given."""
    num_epochs: Annotated[int, Count] = 10
    """Epochs of each training."""
    rounds: Annotated[int, Count] = 3
    """Trainings of each kind, taken in turn."""
    threads: Annotated[int, NonNegative] = 0
    """Threads of torch on the CPU, for both; 0 leaves the choice to torch."""

    study: bool = False
    """Time a study against Optuna's usual loop around the plain script, instead of runs."""
    n_trials: Annotated[int, Count] = 30
    """Trials of each study."""
    usual_trials: Annotated[int | None, Count] = None
    """Trials of the usual way alone, which takes its time; as many as the others unless given."""

    compare: bool = False
    """Time the comparison of recorded runs, instead of running any."""
    n_runs: Annotated[int, Count] = 1000
    """Runs to compare."""

    def __post_init__(self) -> None:
        fields.check_all(self)
