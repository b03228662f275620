"""The flags of `study` that are not hyperparameters."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

from harness.base.command_line import repeatable
from harness.base.fields import Interval, Name, Positive, Seed, Threads
from harness.base.processors import processors
from harness.cli.shared_flags import default
from harness.cli.training_flags import TrainingFlags
from harness.search.objective import Objective
from harness.search.samplers import PrunerName, SamplerName
from harness.search.storage import storage_url
from harness.search.study import Study
from harness.training.builtin_datasets import data_root
from harness.training.device import Execution, choose
from harness.training.experiment import Experiment
from harness.workers.study_run import StudyRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(TrainingFlags):
    """How to search: how long, with what, from where."""

    n_trials: Annotated[
        int | None, Interval(ge=1, le=1_000_000), default("INT", "the study's own number")
    ] = None
    """Trials to finish in total, including earlier ones."""
    timeout: Annotated[float | None, Positive, default("SECONDS", "no limit")] = None
    """Seconds after which no new trial starts."""
    trial_timeout: Annotated[float | None, Positive, default("SECONDS", "no limit")] = None
    """Seconds of work after which a trial is ended as timed out; confirmations may take longer."""
    workers: Annotated[int, Threads] = 0
    """Processes that train at the same time; 0 means one per core, or one on an accelerator."""
    objective: Annotated[tuple[str, ...], default("METRIC ...", "the study's own")] = ()
    """Metrics to optimise: validation/loss, or several for a Pareto front."""
    sampler: Annotated[
        SamplerName | None, default("{tpe,gp,cmaes,random,qmc,grid}", "the study's own, or tpe")
    ] = None
    """What chooses the next trial; a grid gets finer with the number of trials."""
    pruner: Annotated[
        PrunerName | None,
        default("{median,hyperband,none}", "median, or none where none can judge"),
    ] = None
    """What stops unpromising trials early."""
    sampler_seed: Annotated[int, Seed] = 0
    """Seed of the sampler; with one worker, the study is repeatable."""
    storage: Annotated[str | None, default("URL", "mlruns/optuna.db")] = None
    """Database URL of an Optuna storage, which several machines may share."""
    study_name: Annotated[str | None, Name, default("TEXT", "the name of the file")] = None
    """Name of the stored study."""
    warm_start: Annotated[str | None, Name, default("STUDY", "none")] = None
    """Stored study whose best configurations are tried first."""
    confirm_seeds: Annotated[int, Interval(ge=0, le=1000)] = 5
    """Fresh seeds that retrain and test the best configuration and the defaults; 0 skips it."""
    release_trials: bool = False
    """Requeue the running trials of other machines; use it only if those machines have died."""
    accept_changed_code: bool = False
    """Go on with changed code: all is confirmed anew, and each trial's version is marked."""
    dry_run: bool = False
    """Print the space, the budget and an estimate of the time, and stop."""

    def execution_and_workers(self) -> tuple[Execution, int]:
        """How each worker computes, and the number of workers: together they use all cores."""
        cores = processors()
        on_cpu = choose(self.device).type == "cpu"
        workers = self.workers or (max(1, cores // (self.threads or 1)) if on_cpu else 1)
        threads = self.threads or max(1, cores // workers)
        return dataclasses.replace(self.execution(), threads=threads), workers

    def request(
        self,
        file: str,
        declared: Study,
        experiment: Experiment,
        command: tuple[str, ...] | None = None,
        *,
        forks: bool = False,
    ) -> StudyRequest:
        """The study as it is to be run.

        Args:
            file: name of the study's file; empty for a study of a notebook.
            command: the command line that goes on with it; by default that of this process.
            experiment: the declared one, with the values of the command line.
            forks: whether workers may be forked from this process.

        Raises:
            BadRequest: the storage is not a database URL, or this machine has no such device.
        """
        execution, workers = self.execution_and_workers()
        study = dataclasses.replace(declared, experiment=experiment)
        if self.objective:
            objectives = tuple(map(Objective, self.objective))
            study = dataclasses.replace(study, objective=None, objectives=objectives)
        return StudyRequest(
            file=file,
            study=study,
            study_name=self.study_name or file,
            url=storage_url(self.storage),
            n_trials=self.n_trials or declared.n_trials,
            sampler=self.sampler,
            pruner=self.pruner,
            sampler_seed=self.sampler_seed,
            execution=execution,
            workers=workers,
            root=data_root(self.data_root),
            timeout=self.timeout,
            trial_timeout=self.trial_timeout,
            warm_start=self.warm_start,
            confirm_seeds=self.confirm_seeds,
            release_trials=self.release_trials,
            accept_changed_code=self.accept_changed_code,
            command=repeatable(sys.argv) if command is None else command,
            forks=forks,
        )
