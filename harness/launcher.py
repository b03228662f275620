"""The launcher of a study: starts workers, watches them, records the study, confirms its best."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import optuna
from optuna.storages import RDBStorage

from harness.errors import BadRequest, RunFailed
from harness.project import ROOT
from harness.search import claim
from harness.search.claim import Counts, Search
from harness.search.storage import lock, make_pruner
from harness.statistics import Summary, summarize
from harness.tracking.process import RecorderProcess
from harness.training.device import Execution
from harness.training.experiment import Experiment


@dataclass
class WorkerProcess:
    """One worker: its process, and what it was last heard to do."""

    number: int
    process: subprocess.Popen[str]
    errors: IO[str]
    doing: str = "starting"
    trial: int | None = None
    epoch: int = 0
    value: float | None = None
    busy: bool = True

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def send(self, **message: Any) -> None:
        """Send it one line; a worker that has died will not read it."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(message), file=self.process.stdin, flush=True)

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()[-500:].strip()


@dataclass(frozen=True)
class Confirmation:
    """One configuration, trained anew on the full training set with several seeds.

    Attributes:
        accuracies: test accuracy by seed.
    """

    fields: dict[str, Any]
    accuracies: dict[int, float]

    @property
    def summary(self) -> Summary:
        """Mean, spread and interval over the seeds."""
        return summarize(list(self.accuracies.values()))


@dataclass
class Progress:
    """Where a study is, for whoever looks on."""

    workers: list[WorkerProcess]
    counts: Counts
    n_trials: int
    best_value: float | None
    best_params: dict[str, Any]
    started: float = field(default_factory=time.monotonic)
    finished_before: int = 0
    confirming: str = ""

    @property
    def trials_per_hour(self) -> float:
        """Trials finished in this process's time, scaled to an hour."""
        done = self.counts.finished - self.finished_before
        return done / max(time.monotonic() - self.started, 1e-9) * 3600

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent, at the speed so far; None before the first trial."""
        left = self.n_trials - self.counts.finished
        return left / self.trials_per_hour * 3600 if self.trials_per_hour else None


class StudyWatcher(Protocol):
    """Whoever looks on: the screen."""

    def event(self, progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> None:
        """A worker has said something."""

    def stopped(self) -> None:
        """There is nothing more to see."""


def open_study(search: Search, storage: RDBStorage, warm_start: str | None = None) -> optuna.Study:
    """Create the stored study, or find it as it was declared; trial 0 is the defaults.

    Raises:
        BadRequest: the stored study was declared otherwise, or there is none to start from.
    """
    declaration = search.study.declaration()
    with lock(search.url):
        try:
            stored = optuna.create_study(
                storage=storage,
                study_name=search.study_name,
                direction="maximize",
                pruner=make_pruner(search.pruner, search.study.experiment.num_epochs),
            )
        except optuna.exceptions.DuplicatedStudyError:
            stored = search.stored(storage)
            _refuse_changes(search.study_name, stored.user_attrs.get("declaration"), declaration)
            return stored
        stored.set_user_attr("declaration", declaration)
        defaults = search.study.experiment.fields()
        names = search.study.space or defaults
        stored.enqueue_trial({name: defaults[name] for name in names})
        for parameters in _best_of(storage, warm_start) if warm_start else []:
            stored.enqueue_trial(
                {k: v for k, v in parameters.items() if k in names}, skip_if_exists=True
            )
        return stored


def _refuse_changes(name: str, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    if before is None:
        raise BadRequest(
            f"The stored study {name!r} is not one of the harness's. Use another name."
        )
    changed = []
    for part in ("experiment", "space", "fixed"):
        old, new = before.get(part), json.loads(json.dumps(now[part]))
        if isinstance(old, dict) and isinstance(new, dict):
            changed += [
                f"{key} was {old.get(key, 'not there')}, is {new.get(key, 'not there')}"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ]
        elif old != new:
            changed.append(f"{part} was {old}, is {new}")
    if changed:
        raise BadRequest(
            f"The stored study {name!r} was begun otherwise: {'; '.join(changed)}.\n"
            f"Go on under another --study-name, with --warm-start {name} to begin from its best."
        )


def _best_of(storage: RDBStorage, name: str, most: int = 5) -> list[dict[str, Any]]:
    """The parameters of the best trials of another stored study."""
    try:
        other = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise BadRequest(f"warm_start: there is no stored study {name!r}.") from None
    completed = other.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    completed.sort(key=lambda trial: -(trial.value or 0.0))
    return [trial.params for trial in completed[:most]]


class Launcher:
    """Runs a study's workers and keeps its record."""

    def __init__(
        self,
        study_file: str,
        search: Search,
        storage: RDBStorage,
        recorder: RecorderProcess,
        run_id: str,
        watcher: StudyWatcher,
    ) -> None:
        self.study_file = study_file
        self.search = search
        self.storage = storage
        self.recorder = recorder
        self.run_id = run_id
        self.watcher = watcher
        self.events: queue.Queue[tuple[WorkerProcess, dict[str, Any] | None]] = queue.Queue()
        self.workers: list[WorkerProcess] = []
        self.stop_reason = ""
        counts = self.counts()
        self.progress = Progress(
            self.workers, counts, search.n_trials, None, {}, finished_before=counts.finished
        )
        self._find_best()

    def counts(self) -> Counts:
        """How far the stored study is."""
        return claim.count(self.search.stored(self.storage).get_trials(deepcopy=False))

    def start_workers(
        self, execution: Execution, data_root: str | None, timeout: float | None
    ) -> None:
        """Start one worker for each connection that the recorder shares."""
        task = {
            "study": self.study_file,
            "experiment": self.search.study.experiment.fields(),
            "search": {
                name: getattr(self.search, name)
                for name in ("study_name", "url", "n_trials", "sampler", "pruner", "sampler_seed")
            },
            "execution": dataclasses.asdict(execution),
            "data_root": data_root,
            "parent": self.run_id,
            "timeout": timeout,
        }
        for number, share in enumerate(self.recorder.shares):
            errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the worker has died)
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                pass_fds=[share.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": str(execution.threads)},
                # Ctrl-C is for the launcher, which then ends its workers in order.
                start_new_session=True,
            )
            worker = WorkerProcess(number, process, errors)
            self.workers.append(worker)
            worker.send(**task, recorder=share.fileno())
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        for share in self.recorder.shares:
            share.close()

    def search_trials(self) -> None:
        """Let the workers take trials until the budget is spent.

        Raises:
            RunFailed: every worker died, or the study stopped itself.
        """
        for worker in self.workers:
            worker.send(job="trials")
        self._until(lambda: not any(worker.busy for worker in self.workers), self._trial_event)
        counts = self.counts()
        if counts.finished < self.search.n_trials and "failed" in self.stop_reason:
            raise RunFailed(f"The study stopped: {self.stop_reason}")

    def confirm(
        self, configs: dict[str, Experiment], seeds: Sequence[int]
    ) -> dict[str, Confirmation]:
        """Train each configuration anew with each seed and test it once.

        Confirmations that are stored already are not run again.

        Raises:
            RunFailed: one of them went wrong.
        """
        jobs = [
            (config, dataclasses.replace(experiment, seed=seed, validation_size=0))
            for seed in seeds
            for config, experiment in configs.items()
        ]
        stored = self.search.stored(self.storage)
        with lock(self.search.url, f"confirmation of {self.search.study_name}"):
            known = stored.user_attrs
            waiting = [job for job in jobs if _key(job[1]) not in known]
            total, failures = len(waiting), []

            def hand_out() -> None:
                for worker in self.workers:
                    if waiting and worker.alive and not worker.busy:
                        config, experiment = waiting.pop(0)
                        worker.busy = True
                        worker.doing = f"confirming {config}, seed {experiment.seed}"
                        worker.send(job="confirm", config=config, fields=experiment.fields())

            def heard(worker: WorkerProcess, event: dict[str, Any]) -> None:
                if event["event"] == "confirmed":
                    experiment = dataclasses.replace(
                        configs[event["config"]], seed=event["seed"], validation_size=0
                    )
                    stored.set_user_attr(_key(experiment), event)
                if event["event"] == "unconfirmed":
                    failures.append(event["reason"])
                if event["event"] in ("confirmed", "unconfirmed"):
                    worker.busy = False
                    hand_out()
                left = len(waiting) + sum(worker.busy for worker in self.workers)
                self.progress.confirming = f"{total - left} of {total}"

            hand_out()
            self._until(
                lambda: not waiting and not any(worker.busy for worker in self.workers), heard
            )
            if failures:
                raise RunFailed(f"A confirmation failed: {failures[0]}")
            known = stored.user_attrs
        return {
            config: Confirmation(
                experiment.fields(),
                {
                    seed: known[
                        _key(dataclasses.replace(experiment, seed=seed, validation_size=0))
                    ]["accuracy"]
                    for seed in seeds
                },
            )
            for config, experiment in configs.items()
        }

    def close(self) -> None:
        """End the workers; what they are at goes back into the queue."""
        for worker in self.workers:
            if worker.alive:
                if worker.busy:
                    worker.process.send_signal(signal.SIGTERM)
                assert worker.process.stdin
                with contextlib.suppress(BrokenPipeError):
                    worker.process.stdin.close()
        for worker in self.workers:
            worker.process.wait()
        self.watcher.stopped()

    def _listen(self, worker: WorkerProcess) -> None:
        assert worker.process.stdout
        for line in worker.process.stdout:
            self.events.put((worker, json.loads(line)))
        self.events.put((worker, None))

    def _until(
        self,
        done: Callable[[], bool],
        heard: Callable[[WorkerProcess, dict[str, Any]], None],
    ) -> None:
        while not done():
            worker, event = self.events.get()
            if event is None:
                worker.process.wait()
                worker.busy = False
                worker.doing = f"died with status {worker.process.returncode}"
                if not any(other.alive for other in self.workers) and not done():
                    raise RunFailed(f"All workers died. The last one said: {worker.last_words()}")
                event = {"event": "died"}
            heard(worker, event)
            self.watcher.event(self.progress, worker, event)

    def _trial_event(self, worker: WorkerProcess, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "trial":
            worker.trial, worker.epoch, worker.value = event["trial"], 0, None
            worker.doing = f"trial {event['trial']}"
        elif kind == "epoch":
            worker.epoch, worker.value = event["epoch"], event["value"]
        elif kind == "finished":
            worker.busy, worker.doing = False, "idle"
            self.stop_reason = event["reason"]
        elif kind == "told":
            self.progress.counts = self.counts()
            self._find_best()
            self._record_progress()

    def _find_best(self) -> None:
        best = claim.best(self.search.stored(self.storage))
        if best:
            self.progress.best_value, self.progress.best_params = best.value, best.params

    def _record_progress(self) -> None:
        counts = self.progress.counts
        metrics: dict[str, float] = {
            "study/completed": counts.completed,
            "study/pruned": counts.pruned,
            "study/diverged": counts.diverged,
            "study/failed": counts.failed,
            "study/trials_per_hour": self.progress.trials_per_hour,
        }
        if self.progress.best_value is not None:
            metrics["study/best_value"] = self.progress.best_value
        self.recorder.epoch(self.run_id, counts.finished, metrics)


def _key(experiment: Experiment) -> str:
    """The attribute of the stored study that holds the confirmation of this very experiment."""
    text = json.dumps(experiment.fields(), sort_keys=True)
    return f"confirmation {zlib.crc32(text.encode()):08x} seed {experiment.seed}"
