"""The launcher of a study: gives its workers work, records the study, confirms its best."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from harness.base.errors import RunFailed
from harness.base.ownership import Owner
from harness.base.signals import Interrupted, deferred
from harness.base.statistics import Summary, summarize
from harness.search import trial_queue
from harness.search.storage import StoredStudy, lock
from harness.search.trial_queue import Counts, Search
from harness.tracking.messages import EndRun, LogEpoch, ReconcileChildren, ReopenRun, StartRun
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.schema import Outcome, RunRecord
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.workers.local_pool import Crew, WorkerProcess


@dataclass(frozen=True)
class Confirmation:
    """One configuration, trained anew on the full training set with several seeds.

    Attributes:
        accuracies: test accuracy by seed; 0 where the training diverged.
        diverged: the seeds where it did.
        run_ids: of the trainings, seed by seed.
        seconds: of all trainings together; None where they were not measured.
    """

    fields: dict[str, Any]
    accuracies: dict[int, float]
    diverged: list[int]
    run_ids: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def summary(self) -> Summary:
        """Mean, spread and interval over the seeds."""
        return summarize(list(self.accuracies.values()))


@dataclass
class Progress:
    """Where a study is, for whoever looks on.

    Attributes:
        started: when the first trial of this process's time began; 0 before that.
    """

    n_trials: int
    workers: list[WorkerProcess]
    counts: Counts
    best_value: float | None
    finished_before: int
    started: float = 0.0
    confirming: str = ""

    @property
    def trials_per_hour(self) -> float:
        """Trials finished in this process's time, scaled to an hour."""
        if not self.started:
            return 0.0
        done = self.counts.finished - self.finished_before
        return done / (time.monotonic() - self.started) * 3600

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent, at the speed so far; None before the first trial."""
        left = self.n_trials - self.counts.finished
        return left / self.trials_per_hour * 3600 if self.trials_per_hour else None


class StudyWatcher(Protocol):
    """Whoever looks on: the screen."""

    def started(self, progress: Progress) -> None:
        """The workers are starting."""

    def event(self, progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> None:
        """A worker has said something."""

    def stopped(self) -> None:
        """There is nothing more to see."""


class Launcher:
    """Runs a study with its crew and keeps its record; use it in a `with` statement.

    However the block ends, the workers end with it, their trials go back into the queue, and no
    run of theirs stays open.
    """

    def __init__(
        self,
        search: Search,
        stored: StoredStudy,
        crew: Crew,
        recorder: RecorderProcess,
        watcher: StudyWatcher,
    ) -> None:
        self.search = search
        self.stored = stored
        self.crew = crew
        self.workers = crew.workers
        self.recorder = recorder
        self.watcher = watcher
        self.run_id = ""
        counts, best = self._counts(), trial_queue.best(stored)
        value = best.value if best else None
        self.progress = Progress(search.n_trials, self.workers, counts, value, counts.finished)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with deferred():
            self.crew.close()
            self.watcher.stopped()
            with lock(self.search.url):
                trial_queue.repair(self.stored)
            try:
                self._settle()
                if error and self.run_id:
                    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
                    outcome: Outcome = "interrupted" if interrupted else "failed"
                    self.recorder.send(EndRun(self.run_id, outcome, tags={"reason": str(error)}))
            except RunFailed:
                if error is None:
                    raise  # else what ended the block is the news

    def begin(self, record: RunRecord) -> None:
        """Begin the study's own run, or go on with the one that the stored study names."""
        with lock(self.search.url, f"run of {self.search.study_name}"):
            self.run_id = self.stored.user_attrs.get("run_id", "")
            if self.run_id:
                try:
                    self.recorder.send(ReopenRun(self.run_id, str(Owner.current())))
                except RunFailed as error:
                    raise RunFailed(
                        f"{error}\nThe study is recorded in that run. Restore it, set "
                        "MLFLOW_TRACKING_URI to the store that has it, or choose another "
                        "--study-name."
                    ) from None
                self._settle()
            else:
                self.run_id = self.recorder.send(StartRun(record))
                self.stored.set_user_attr("run_id", self.run_id)

    def set_task(
        self, study_file: str, execution: Execution, data_root: str, timeout: float | None
    ) -> None:
        """Tell the workers what they work on."""
        self.watcher.started(self.progress)
        names = ("study_name", "url", "n_trials", "sampler", "pruner", "sampler_seed")
        task = {
            "command": sys.argv,
            "study": study_file,
            "experiment": self.search.study.experiment.fields(),
            "search": {name: getattr(self.search, name) for name in names},
            "execution": dataclasses.asdict(execution),
            "data_root": data_root,
            "timeout": timeout,
        }
        self.crew.set_task(task)

    def search_trials(self) -> None:
        """Let the workers take trials until the budget is spent or the time is over.

        Raises:
            RunFailed: every worker died, or too many trials failed.
        """
        for worker in self.workers:
            worker.give(job="trials", parent=self.run_id)
        self._until(lambda: not any(worker.job for worker in self.workers), self._trial_event)
        self._find_progress()
        reason = trial_queue.failure_row(self.stored, self.stored.get_trials(deepcopy=False))
        if reason and self.progress.counts.finished < self.search.n_trials:
            raise RunFailed(f"The study stopped: {reason}.")

    def confirm(self, configs: dict[str, Experiment], seeds: Sequence[int]) -> None:
        """Train each configuration anew with each seed and test it once.

        Confirmations that are stored already are not run again.

        Raises:
            RunFailed: one of them went wrong.
        """
        with lock(self.search.url, f"confirmation of {self.search.study_name}"):
            known = self.stored.user_attrs
            waiting = [
                {
                    "job": "confirm",
                    "parent": self.run_id,
                    "config": config,
                    "fields": seeded.fields(),
                }
                for seed in seeds
                for config, experiment in configs.items()
                if _key(seeded := _confirmed(experiment, seed)) not in known
            ]
            total, failures = len(waiting), []

            def hand_out() -> None:
                for worker in self.workers:
                    if waiting and worker.alive and not worker.job:
                        job = waiting.pop(0)
                        worker.give(**job)
                        worker.doing, worker.epoch = _described(job), 0

            def heard(worker: WorkerProcess, event: dict[str, Any]) -> None:
                if event["event"] == "epoch":
                    worker.epoch, worker.value = event["epoch"], None
                    return
                job, worker.job = worker.job, None
                if event["event"] == "died" and job:
                    waiting.insert(0, job)
                if event["event"] == "unconfirmed":
                    failures.append(event["reason"])
                if event["event"] == "confirmed" and job:
                    event["name"] = _described(job)
                    experiment = type(self.search.study.experiment)(**job["fields"])
                    self.stored.set_user_attr(_key(experiment), event)
                left = len(waiting) + sum(bool(worker.job) for worker in self.workers)
                self.progress.confirming = f"{total - left} of {total}"
                worker.doing, worker.epoch = "idle", 0
                hand_out()

            hand_out()
            self._until(lambda: not waiting and not any(w.job for w in self.workers), heard)
        if failures:
            raise RunFailed(f"A confirmation failed: {failures[0]}")

    def _settle(self) -> None:
        """Make the record agree with the storage about trials whose process died."""
        if self.run_id:
            outcomes = trial_queue.outcomes(self.stored)
            self.recorder.send(ReconcileChildren(self.run_id, outcomes))

    def _until(
        self,
        done: Callable[[], bool],
        heard: Callable[[WorkerProcess, dict[str, Any]], None],
    ) -> None:
        while not done():
            worker, event = self.crew.hear()
            heard(worker, event)
            if event["event"] == "died":
                worker.doing = "dead"
                if not any(other.alive for other in self.workers):
                    raise RunFailed(f"All workers died. The last one: {event['how']}")
            self.watcher.event(self.progress, worker, event)

    def _trial_event(self, worker: WorkerProcess, event: dict[str, Any]) -> None:
        match event["event"]:
            case "trial":
                self.progress.started = self.progress.started or time.monotonic()
                worker.doing, worker.epoch, worker.value = event["name"], 0, None
            case "epoch":
                worker.epoch, worker.value = event["epoch"], event["value"]
            case "finished" | "died":
                worker.job, worker.doing = None, "idle"
            case "told":
                self._find_progress()

    def _counts(self) -> Counts:
        return trial_queue.count(self.stored.get_trials(deepcopy=False))

    def _find_progress(self) -> None:
        """Count, and record where the study is now, once for each number of finished trials."""
        before, progress = self.progress.counts.finished, self.progress
        progress.counts, best = self._counts(), trial_queue.best(self.stored)
        if progress.counts.finished == before:
            return
        metrics: dict[str, float] = {
            "study/completed": progress.counts.completed,
            "study/pruned": progress.counts.pruned,
            "study/diverged": progress.counts.diverged,
            "study/failed": progress.counts.failed,
            "study/trials_per_hour": progress.trials_per_hour,
        }
        if best and best.value is not None:
            progress.best_value = metrics["study/best_value"] = best.value
        self.recorder.send(LogEpoch(self.run_id, progress.counts.finished, metrics))


def confirmations(
    stored: StoredStudy, configs: dict[str, Experiment], seeds: Sequence[int]
) -> dict[str, Confirmation]:
    """The stored confirmations of these configurations; empty where one is missing."""
    known = stored.user_attrs
    found = {}
    for config, experiment in configs.items():
        keys = {seed: _key(_confirmed(experiment, seed)) for seed in seeds}
        if not keys or not known.keys() >= set(keys.values()):
            return {}
        events = {seed: known[key] for seed, key in keys.items()}
        diverged = [seed for seed, event in events.items() if event["outcome"] == "diverged"]
        accuracies = {
            seed: 0.0 if seed in diverged else event["accuracy"] for seed, event in events.items()
        }
        run_ids = tuple(event["run_id"] for event in events.values())
        seconds = [event["seconds"] for event in events.values() if "seconds" in event]
        found[config] = Confirmation(
            experiment.fields(),
            accuracies,
            diverged,
            run_ids,
            sum(seconds) if len(seconds) == len(events) else None,
        )
    return found


def _confirmed(experiment: Experiment, seed: int) -> Experiment:
    """A configuration as its confirmation trains it: on all training images."""
    return dataclasses.replace(experiment, seed=seed, validation_size=0)


def _key(experiment: Experiment) -> str:
    """The attribute of the stored study that holds the confirmation of this very experiment."""
    text = json.dumps(experiment.fields(), sort_keys=True)
    return f"confirmation {zlib.crc32(text.encode()):08x} seed {experiment.seed}"


def _described(job: dict[str, Any]) -> str:
    return f"{job['config']}, seed {job['fields']['seed']}"
