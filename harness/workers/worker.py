"""A worker of a study: a process that takes trials and confirmation runs until there are no more.

Started by `harness.workers.local_pool`, not by hand. On its line to the launcher it hears what it
works on and then its jobs, and says what happens. It ends when the line does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from harness.base import signals
from harness.base.command_line import command_text, run_arguments
from harness.base.errors import RunFailed
from harness.base.formatting import assignments
from harness.base.ownership import register
from harness.base.privacy import mask
from harness.base.signals import Interrupted
from harness.cli import flags
from harness.runs import runner
from harness.search import Trial, storage, trial_queue
from harness.search.study import load_study
from harness.search.trial import OBJECTIVE, TrialResult, run_trial
from harness.tracking.recorder_process import RecorderClient
from harness.tracking.store_address import fingerprint
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult, Training

WAIT_SECONDS = 0.2
"""Between two looks at trials that other workers hold: one of them may die."""


@dataclasses.dataclass(frozen=True)
class Place:
    """The descriptors that a worker inherits: its line, its standard error, its recorder."""

    line: int
    errors: int
    recorder: int

    @classmethod
    def from_text(cls, text: str) -> Place:
        """Read what `str` wrote."""
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self.descriptors))

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """All three."""
        return self.line, self.errors, self.recorder


class Line:
    """The connection to the launcher."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def hear(self) -> dict[str, Any]:
        """The next message, as soon as there is one."""
        signals.raise_pending()
        message = self._heard.get()
        signals.raise_pending()
        return message

    def say(self, **event: Any) -> None:
        """Tell the launcher; one that has died will not hear."""
        with contextlib.suppress(OSError):
            self._connection.send(event)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._heard.put(self._connection.recv())
        # The launcher wants no more, or is dead: what is at hand goes back into the queue.
        os.kill(os.getpid(), signal.SIGTERM)
        self._heard.put({})  # whoever waits looks up, should the signal have been lost


class Worker:
    """One process's share of a study."""

    def __init__(self, task: dict[str, Any], line: Line, recorder: RecorderClient) -> None:
        """Open storage and data once; `task` is what `harness.workers.coordinator` sends."""
        sys.argv = task["command"]  # what is recorded as the way to repeat it
        declared = load_study(task["study"])
        experiment = type(declared.experiment)(**task["experiment"])
        self.line = line
        self.study = dataclasses.replace(declared, experiment=experiment)
        self.search = trial_queue.Search(study=self.study, **task["search"])
        self.execution = Execution(**task["execution"])
        self.device = self.execution.apply()
        self.data_root = Path(task["data_root"])
        self.timeout = task["timeout"] or float("inf")
        self.recorder = recorder
        self.stored = self.search.stored(storage.open_storage(self.search.url))
        self.prepared = runner.prepare(experiment, self.data_root, with_test=False)
        self.full: runner.Prepared | None = None

    def search_trials(self, parent: str) -> None:
        """Take trials, below the study's run, until the budget is spent or the time is over."""
        started = time.monotonic()
        with contextlib.suppress(trial_queue.Finished):
            while time.monotonic() < started + self.timeout:
                signals.raise_pending()
                with trial_queue.claimed(self.search, self.stored) as trial:
                    if trial is not None:
                        self.run_trial(parent, trial)
                if trial is None:
                    time.sleep(WAIT_SECONDS)
        self.line.say(event="finished")

    def run_trial(self, parent: str, trial: Trial) -> None:
        """Train one trial and record it."""
        started = time.perf_counter()
        problem: Exception | None = None
        experiment = self.study.experiment
        try:
            experiment = self.study.suggested(trial)
        except Exception as error:  # whatever the study's own function raises
            problem = error
        prepared = dataclasses.replace(self.prepared, experiment=experiment)
        name = f"trial {trial.number} {named(trial.params)}".strip()
        self.line.say(event="trial", trial=trial.number, name=name)
        labels = runner.Labels(
            kind="trial",
            name=name,
            experiment=self.search.study_name,
            parent=parent,
            settings=dataclasses.asdict(self.execution),
            user_tags={"harness.trial": str(trial.number)},
        )
        run_id = self.recorder.start(
            runner.run_record(prepared, self.execution, self.device, labels)
        )
        trial.set_user_attr("run_id", run_id)

        def build() -> Training:
            if problem:
                raise problem
            return runner.training(prepared, self.execution, self.device)

        def on_epoch(result: EpochResult) -> None:
            # Optuna writes what it is told meanwhile.
            self.recorder.epoch(run_id, result.epoch, result.metrics, wait=False)
            self.line.say(event="epoch", epoch=result.epoch, value=result.metrics[OBJECTIVE])
            signals.raise_pending()

        try:
            result = run_trial(self.stored, trial, build, on_epoch, self.recorder.wait)
        except Interrupted:
            self.recorder.finish(run_id, "interrupted")
            raise
        self.recorder.finish(
            run_id,
            result.outcome,
            epoch=result.num_epochs,
            metrics={"time/total_seconds": time.perf_counter() - started},
            tags={"reason": result.reason} if result.reason else {},
            description=self.description(experiment, result),
        )
        self.line.say(event="told", name=name, **dataclasses.asdict(result))

    def description(self, experiment: Experiment, result: TrialResult) -> str:
        """A trial in Markdown: what, result, how to train the same once more."""
        defaults = {field.name: field.default for field in dataclasses.fields(experiment)}
        options = {**experiment.fields(), "threads": self.execution.threads}
        command = command_text(run_arguments(experiment.name, options, defaults))
        value = "none" if result.value is None else f"{result.value:.4f}"
        reason = f" ({result.reason})" if result.reason else ""
        return (
            f"**{experiment}**, a trial of the study {self.search.study_name}: "
            f"**{result.outcome}**{reason} after {result.num_epochs} of {experiment.num_epochs} "
            f"epochs. Validation accuracy {value} ({len(self.prepared.evaluation):,} images, "
            f"n = 1 seed).\n\nTrain it again with:\n\n    {command}"
        )

    def confirm(self, parent: str, fields: dict[str, Any], config: str) -> None:
        """Train one configuration on the full training set and test it once, at the end."""
        experiment = type(self.study.experiment)(**fields)
        if self.full is None:
            self.full = runner.prepare(experiment, self.data_root)
        prepared = dataclasses.replace(self.full, experiment=experiment)
        labels = runner.Labels(
            kind="confirm",
            name=f"{config} seed={experiment.seed}",
            experiment=self.search.study_name,
            parent=parent,
            settings=dataclasses.asdict(self.execution),
            user_tags={"harness.config": config},
        )
        result = runner.run(
            prepared,
            self.execution,
            self.device,
            self.recorder,
            Silent(self.line),
            labels,
            evaluate_each_epoch=False,
        )
        self.line.say(
            event="confirmed",
            run_id=result.run_id,
            outcome=result.outcome,
            accuracy=result.metrics.get("test/accuracy"),
            loss=result.metrics.get("test/loss"),
            seconds=result.seconds,
        )


class Silent:
    """Watches a confirmation run and says only how far it is."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over."""
        self.line.say(event="epoch", epoch=result.epoch, value=None)

    def stopped(self) -> None:
        """The training is over."""


def named(params: dict[str, Any]) -> str:
    """Searched values as they stand in a trial's name: `lr=0.0513 batch_size=64`."""
    return assignments(params)


def once(number: int) -> None:
    """Ignore a signal's repetitions: the system may send what the launcher's end says already.

    The second time would otherwise be haste, and leave a trial behind.
    """
    handle = signal.getsignal(number)
    assert callable(handle)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        handle(number, frame)

    signal.signal(number, first)


def work(place: Place) -> NoReturn:
    """Work on what comes through the line of a place, until it ends."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(place.errors, 1)  # what an experiment prints is shown if this process dies
    os.dup2(place.errors, 2)
    once(signal.SIGTERM)
    line = Line(Connection(place.line))
    task = line.hear()
    url = task["search"]["url"]
    holds = {"store": fingerprint(), "study": task["search"]["study_name"]}
    registration = register(holds | ({"storage": url} if mask(url) == url else {}))
    try:
        with storage.failures_told(url):
            _carry_out(Worker(task, line, RecorderClient.inherited(place.recorder)), line)
    except Interrupted:  # its trial is given back; after anything else somebody has to look
        registration.unlink(missing_ok=True)
        raise


def _carry_out(worker: Worker, line: Line) -> NoReturn:
    while True:
        match line.hear():
            case {"job": "trials", "parent": parent}:
                worker.search_trials(parent)
            case {"job": "confirm", "parent": parent, "fields": fields, "config": config}:
                try:
                    worker.confirm(parent, fields, config)
                except RunFailed as error:
                    line.say(event="unconfirmed", reason=str(error))


def main(arguments: list[str]) -> NoReturn:
    """Work in the place that is given."""
    work(Place.from_text(arguments[0]))


if __name__ == "__main__":
    flags.enter(main)
