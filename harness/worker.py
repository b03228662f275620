"""A worker of a study: a process that takes trials and confirmation runs until there are no more.

Started by `harness.study`, not by hand. It reads one JSON object a line from standard input: first
what it works on, then its jobs; and writes one a line to standard output: what happens.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness import door, runner
from harness.errors import RunFailed
from harness.interruption import Interrupted
from harness.search import claim, storage
from harness.search.study import load_study
from harness.search.trial import OBJECTIVE, run_trial
from harness.tracking.process import RecorderClient
from harness.training.device import Execution
from harness.training.loop import EpochResult, Training

WAIT_SECONDS = 0.5
"""Between two looks at trials that other workers hold: one of them may die."""


class Worker:
    """One process's share of a study."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Open storage and data once; `task` is what `harness.launcher` sends."""
        declared = load_study(task["study"])
        experiment = type(declared.experiment)(**task["experiment"])
        self.study = dataclasses.replace(declared, experiment=experiment)
        self.search = claim.Search(study=self.study, **task["search"])
        self.execution = Execution(**task["execution"])
        self.device = self.execution.apply()
        self.data_root = Path(task["data_root"]) if task["data_root"] else None
        self.parent = task["parent"]
        self.deadline = time.monotonic() + (task["timeout"] or float("inf"))
        self.recorder = RecorderClient.inherited(task["recorder"])
        self.storage = storage.open_storage(self.search.url)
        self.prepared = runner.prepare(experiment, self.data_root, with_test=False)
        self.full: runner.Prepared | None = None

    def search_trials(self) -> None:
        """Take trials until the budget is spent or the time is over."""
        while time.monotonic() < self.deadline:
            try:
                trial = claim.claim(self.search, self.storage)
            except claim.Finished as finished:
                say(event="finished", reason=str(finished))
                return
            if trial is None:
                time.sleep(WAIT_SECONDS)
            else:
                self.run_trial(trial)
        say(event="finished", reason="the time is over")

    def run_trial(self, trial: Any) -> None:
        """Train one trial and record it."""
        run_id = ""
        say(event="trial", trial=trial.number, params=trial.params)

        def build() -> Training:
            nonlocal run_id
            experiment = self.study.suggested(trial)
            prepared = dataclasses.replace(self.prepared, experiment=experiment)
            labels = runner.Labels(
                kind="trial",
                name=f"trial {trial.number} {named(trial.params)}",
                experiment=self.search.study_name,
                parent=self.parent,
            )
            record = runner.run_record(prepared, self.execution, self.device, labels)
            run_id = self.recorder.start(record)
            trial.set_user_attr("run_id", run_id)
            return runner.training(prepared, self.execution, self.device)

        def on_epoch(result: EpochResult) -> None:
            self.recorder.epoch(run_id, result.epoch, result.metrics)
            say(
                event="epoch",
                trial=trial.number,
                epoch=result.epoch,
                value=result.metrics[OBJECTIVE],
            )

        stored = self.search.stored(self.storage)
        started = time.perf_counter()
        try:
            result = run_trial(stored, trial, build, on_epoch)
        except Interrupted:
            if run_id:
                self.recorder.finish(run_id, "interrupted")
            raise
        if run_id:
            reason = {"reason": result.reason} if result.reason else {}
            self.recorder.finish(
                run_id,
                result.outcome,
                epoch=result.num_epochs,
                metrics={"time/total_seconds": time.perf_counter() - started},
                tags={"trial": str(trial.number), **reason},
            )
        say(
            event="told",
            trial=trial.number,
            outcome=result.outcome,
            value=result.value,
            epochs=result.num_epochs,
            reason=result.reason,
        )

    def confirm(self, fields: dict[str, Any], config: str) -> None:
        """Train one configuration on the full training set and test it once, at the end."""
        experiment = type(self.study.experiment)(**fields)
        if self.full is None:
            self.full = runner.prepare(experiment, self.data_root)
        prepared = dataclasses.replace(self.full, experiment=experiment)
        labels = runner.Labels(
            kind="confirm",
            name=f"{config} seed={experiment.seed}",
            experiment=self.search.study_name,
            parent=self.parent,
            user_tags={"harness.config": config},
        )
        result = runner.run(prepared, self.execution, self.device, self.recorder, Silent(), labels)
        say(
            event="confirmed",
            config=config,
            seed=experiment.seed,
            run_id=result.run_id,
            outcome=result.outcome,
            accuracy=result.metrics.get("test/accuracy"),
            loss=result.metrics.get("test/loss"),
        )


class Silent:
    """Watches a confirmation run and says only how far it is."""

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over."""
        say(event="confirming", epoch=result.epoch)

    def stopped(self) -> None:
        """The training is over."""


def named(params: dict[str, Any]) -> str:
    """Searched values as they stand in a trial's name: `lr=0.0513 batch_size=64`."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def say(**event: Any) -> None:
    """Tell the launcher.

    Raises:
        Interrupted: the launcher is gone; the trial at hand goes back into the queue.
    """
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        raise Interrupted(signal.SIGTERM) from None


def main(arguments: list[str]) -> int:
    """Work on what standard input says; return the exit status."""
    worker = Worker(json.loads(sys.stdin.readline()))
    say(event="ready")
    for line in sys.stdin:
        job = json.loads(line)
        if job["job"] == "trials":
            worker.search_trials()
        else:
            try:
                worker.confirm(job["fields"], job["config"])
            except RunFailed as error:
                say(event="unconfirmed", config=job["config"], reason=str(error))
    return 0


if __name__ == "__main__":
    door.enter(main)
