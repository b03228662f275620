"""A study from its declaration to its answer: opened, searched, confirmed, reported."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.command_line import go_on, repeatable
from harness.base.errors import BadRequest, RunFailed
from harness.base.ownership import register
from harness.base.privacy import mask
from harness.base.signals import Interrupted
from harness.execution.events import Begun
from harness.execution.preparation import DataSource
from harness.execution.recovery import recover
from harness.execution.specification import RunSpecification
from harness.search import trial_queue
from harness.search.opening import budget, open_study
from harness.search.samplers import PrunerName, SamplerName, check_sampler
from harness.search.storage import StoredStudy, failures_told, lock
from harness.search.study import Study
from harness.search.trial_queue import Search
from harness.tracking.messages import EndRun, OpenStore
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.store_address import fingerprint
from harness.training.device import Execution, choose, describe
from harness.workers.coordinator import Coordinator
from harness.workers.local_pool import LocalPool
from harness.workers.pool import PoolGroup, WorkerSetup
from harness.workers.progress import StudyView
from harness.workers.study_answer import StudyAnswer, configurations, study_answer


@dataclass(frozen=True)
class StudyRequest:
    """A study as it is to be run.

    Attributes:
        file: name of the study's file.
        study: the declaration; its experiment has the values that were asked for.
        study_name: name of the stored study.
        url: of the Optuna storage.
        n_trials: trials to finish in all, earlier ones included.
        workers: how many trainings run at once, each as `execution` says.
        sampler: by default the study's own, or else tpe.
        pruner: by default median, or none if the study has several objectives or searches
            num_epochs.
        timeout: seconds after which no trial is begun.
        trial_timeout: seconds after which a trial is ended as timed out.
        warm_start: a stored study whose best configurations are tried first.
        confirm_seeds: how many seeds confirm the best and the defaults.
        release_trials: whether running trials of other machines are requeued.
        accept_changed_code: whether a stored study goes on although its code has changed.
        command: the command line that goes on with it; empty for a study of a notebook.
        forks: whether workers may be forked from this process. Not if it has trained before: what
            autograd started does not survive a fork.
    """

    file: str
    study: Study
    study_name: str
    url: str
    n_trials: int
    sampler: SamplerName | None
    pruner: PrunerName | None
    sampler_seed: int
    execution: Execution
    workers: int
    root: Path
    timeout: float | None = None
    trial_timeout: float | None = None
    warm_start: str | None = None
    confirm_seeds: int = 5
    release_trials: bool = False
    accept_changed_code: bool = False
    command: tuple[str, ...] = field(default_factory=lambda: repeatable(sys.argv))
    forks: bool = False

    @functools.cached_property
    def data(self) -> DataSource:
        """Opens the data of this process."""
        return DataSource(self.root)

    def search(self) -> Search:
        """The search that the request makes of the declaration.

        Raises:
            BadRequest: the two do not fit together.
        """
        study = self.study
        experiment = study.experiment
        if not experiment.validation_size:
            size = len(self.data.dataset(experiment).train)
            experiment = dataclasses.replace(experiment, validation_size=max(1, size // 6))
        sampler = self.sampler or study.sampler or "tpe"
        check_sampler(sampler)
        if sampler == "grid" and not study.space:
            raise BadRequest(
                "sampler: a grid needs a study with a space, this one has suggest(trial)."
            )
        several = len(study.goals) > 1
        if several and self.pruner not in (None, "none"):
            raise BadRequest(
                f"pruner: {self.pruner} cannot judge an epoch by several objectives; use none."
            )
        if study.searches("num_epochs") and self.pruner not in (None, "none"):
            raise BadRequest(
                f"pruner: {self.pruner} would compare trainings of unequal length, since this "
                "study searches num_epochs; use none."
            )
        unequal = several or study.searches("num_epochs")
        search = Search(
            study=dataclasses.replace(study, experiment=experiment),
            study_name=self.study_name,
            url=self.url,
            n_trials=self.n_trials,
            sampler=sampler,
            pruner=self.pruner or ("none" if unequal else "median"),
            sampler_seed=self.sampler_seed,
            trial_timeout=self.trial_timeout,
        )
        return dataclasses.replace(search, n_trials=budget(search))


def search_and_confirm(
    request: StudyRequest, recorder: RecorderProcess, view: StudyView
) -> tuple[StudyAnswer, bool]:
    """Run a study, or go on with it.

    Returns:
        The answer, and whether there was nothing left to do.

    Raises:
        BadRequest: the request does not fit the declaration, or the stored study.
        RunFailed: no trial was completed, too many failed, or the record or storage failed.
        Interrupted: its trials went back into the queue.
    """
    try:
        with failures_told(request.url):
            return _run(request, recorder, view)
    except Interrupted as interruption:
        interruption.add_note(f"Stopped. Go on with the same command: {go_on(request.command)}")
        raise


def _run(
    request: StudyRequest, recorder: RecorderProcess, view: StudyView
) -> tuple[StudyAnswer, bool]:
    device = choose(request.execution.device)
    workers = min(request.workers, request.n_trials)
    forks = request.forks and device.type == "cpu"
    pool = LocalPool(forks=forks, close_in_worker=recorder.forget)
    with closing(pool):
        # First of all: what comes next starts threads, which no fork takes along.
        setup = WorkerSetup(request.execution, str(request.root))
        group = PoolGroup(pool, workers, setup)
        request.execution.apply()
        search = request.search()
        experiment = search.study.experiment
        prepared = request.data.prepare(experiment, with_test=False)
        data = {part.context: part.digest for part in prepared.data_records()}
        search = dataclasses.replace(search, data=data)
        # Not the one of the search, whose luck has helped to choose the best.
        first = experiment.seed + 1
        seeds = [
            dataclasses.replace(experiment, seed=seed).seed
            for seed in range(first, first + request.confirm_seeds)
        ]
        stored = _open(search, request, view)
        search = dataclasses.replace(search, version=trial_queue.version_of(stored))
        known = study_answer(search, stored, seeds, str(device), request.command)
        if known and known.is_finished and known.is_reported:
            return known, True
        outside = experiment.outside_code()
        told = (recorder.send(OpenStore()), outside.sentence() if outside else "")
        view.opened("\n".join(filter(None, told)))
        recover(recorder)
        work = {"store": fingerprint(), "study": search.study_name}
        # No password is written down here.
        registration = register(
            work | ({"storage": request.url} if mask(request.url) == request.url else {})
        )
        begun = Begun(describe(device), prepared.data_records())
        specification = RunSpecification(
            kind="study",
            name=search.study_name,
            mlflow_experiment=search.study_name,
            user_tags={"harness.study": request.file},
            command=request.command,
            tags={
                "objectives": json.dumps({g.metric: g.best for g in search.study.goals}),
                "trial_timeout": str(search.trial_timeout),
            },
        )
        record = specification.record(experiment, request.execution, begun)
        coordinator = Coordinator(search, stored, group, recorder, request.execution, view)
        try:
            with coordinator:
                coordinator.begin(record)
                coordinator.search_trials(begun, request.timeout)
                chosen = trial_queue.chosen(stored)
                if chosen and coordinator.is_budget_spent:
                    coordinator.confirm(configurations(search, stored, chosen), seeds)
        except Interrupted:  # its trials are in the queue; after an error somebody has to look
            registration.unlink(missing_ok=True)
            raise
    registration.unlink(missing_ok=True)
    answer = study_answer(search, stored, seeds, str(device), request.command)
    if answer is None:
        reason = f"No trial was completed ({coordinator.context.progress.counts})."
        recorder.send(EndRun(coordinator.context.run_id, "failed", tags={"reason": reason}))
        raise RunFailed(reason)
    answer.report(recorder)
    return answer, False


def _open(search: Search, request: StudyRequest, view: StudyView) -> StoredStudy:
    """The stored study, with the trials of dead processes back in its queue."""
    stored = open_study(search, request.warm_start, accept_changed_code=request.accept_changed_code)
    with lock(search.url):
        trial_queue.requeue_orphans(stored)
        trial_queue.forgive_failures(stored)
        if request.release_trials:
            view.note(f"{trial_queue.release(stored)} trials of other machines were requeued.")
        elif foreign := trial_queue.foreign(stored):
            view.note(
                f"{len(foreign)} trials are running on other machines (or containers). "
                "If those have died: --release-trials"
            )
    return stored
