"""The flags of a study that are no hyperparameters."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from harness.base.fields import Interval, Name, Positive, Seed, Threads
from harness.search.samplers import PrunerName, SamplerName
from harness.training.device import Execution, choose


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(Execution):
    """How to search: how long, with what, from where."""

    n_trials: Annotated[int | None, Interval(ge=1, le=1_000_000)] = None
    """Trials to finish in all, earlier ones included; the study's own number unless given."""
    timeout: Annotated[float | None, Positive] = None
    """Seconds after which no trial is begun."""
    workers: Annotated[int, Threads] = 0
    """Processes that train at once; 0 for one a core, or one on an accelerator."""
    sampler: SamplerName = "tpe"
    """How the next trial is chosen; a grid grows finer with the number of trials."""
    pruner: PrunerName = "median"
    """What stops hopeless trials early."""
    sampler_seed: Annotated[int, Seed] = 0
    """Seed of the sampler; with one worker the study is repeatable."""
    storage: str | None = None
    """URL of an Optuna storage that several machines may share; mlruns/optuna.db unless given."""
    study_name: Annotated[str | None, Name] = None
    """Name of the stored study; that of the file unless given."""
    warm_start: Annotated[str | None, Name] = None
    """A stored study whose best configurations are tried first."""
    confirm_seeds: Annotated[int, Interval(ge=0, le=1000)] = 5
    """Seeds that train the best and the defaults anew for the test; 0 for no confirmation."""
    release_trials: bool = False
    """Give back the running trials of other machines, which must have died."""
    data_root: Path | None = None
    """Folder of the data sets; HARNESS_DATA_ROOT, or data in the project, unless given."""
    quiet: bool = False
    """Print the result only."""
    dry_run: bool = False
    """Print the space, the budget and an estimate of the time, and stop."""

    def execution_and_workers(self) -> tuple[Execution, int]:
        """How each worker computes, and how many there are: the cores are shared out."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        cores = cores or 1
        on_cpu = choose(self.device).type == "cpu"
        workers = self.workers or (max(1, cores // (self.threads or 1)) if on_cpu else 1)
        names = [field.name for field in dataclasses.fields(Execution)]
        execution = Execution(**{name: getattr(self, name) for name in names})
        threads = self.threads or max(1, cores // workers)
        return dataclasses.replace(execution, threads=threads), workers
