"""What is done with the events of a training: saved, recorded."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from harness.base import project
from harness.base.errors import RecordLost, RunFailed
from harness.base.formatting import number_of
from harness.base.goals import Goal
from harness.base.inspection import Inspection
from harness.base.ownership import Owner
from harness.execution.driver import Callback
from harness.execution.events import Begun, Ending
from harness.execution.specification import RunSpecification
from harness.execution.trained_network import WEIGHTS
from harness.execution.training_group import TrainingGroup
from harness.tracking.messages import (
    DrawFigures,
    EndRun,
    LogEpoch,
    LogModel,
    Recorder,
    ReopenRun,
    SaveArtifacts,
    StartRun,
)
from harness.tracking.schema import FiguresRecord, Outcome, RunRecord, StoredRun, examples_file
from harness.training import checkpoint
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult, best_epoch


class RecordRun(Callback):
    """Records a training as one run, each epoch before the next one is trained.

    Attributes:
        run_id: empty before the training has begun.
        history: the epochs so far, those included that the training went on from.
        seconds: wall time of the training, its record, its figures and its model; of a resumed run,
            since it was resumed.
    """

    def __init__(
        self,
        recorder: Recorder,
        specification: RunSpecification,
        experiment: Experiment,
        execution: Execution,
        *,
        describe: Callable[[RecordRun, Ending], str] = lambda run, ending: "",
        waits: bool = True,
        if_never_begun: Begun | None = None,
    ) -> None:
        """Record a training with a recorder.

        Args:
            describe: writes the description of the run that has ended, in Markdown.
            waits: whether an epoch and the end are on disk before the training goes on.
            if_never_begun: the machine and the data to record if the training fails or times out
                before it has begun, and its ending does not know them.
        """
        self.recorder, self.specification = recorder, specification
        self.experiment, self.execution = experiment, execution
        self.describe, self.waits = describe, waits
        self.if_never_begun = if_never_begun
        self.run_id = ""
        self.begun_event: Begun | None = None
        self.history: list[EpochResult] = []
        self.ending: Ending | None = None
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self._started = time.perf_counter()

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None if it has not."""
        return self.ending.outcome if self.ending else None

    @property
    def last_metrics(self) -> dict[str, float]:
        """Those of the last epoch, with what was measured once; empty before the first epoch."""
        if not self.history or not self.begun_event:
            return {}
        return self.begun_event.metrics | self.history[-1].metrics

    def begun(self, event: Begun) -> None:
        """Begin the run."""
        self._started = time.perf_counter()
        self.begun_event = event
        self.history = list(event.restored)
        self._open(self.specification.record(self.experiment, self.execution, event))
        self.metrics["time/store_seconds"] = time.perf_counter() - self._started

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Record the epoch."""
        started = time.perf_counter()
        self.history.append(result)
        self._log(result)
        self.add_seconds("time/record_seconds", started)
        return None

    def inspected(self, inspection: Inspection) -> None:
        """Have the figures drawn; the network is exported meanwhile."""
        assert self.begun_event
        figures = FiguresRecord(
            title=str(self.experiment),
            dataset=self.begun_event.data[0].name,
            history=[(result.epoch, result.metrics) for result in self.history],
            inspection=inspection,
        )
        self.recorder.post(DrawFigures(self.run_id, figures))

    def ended(self, ending: Ending) -> None:
        """End the run; what the training left is recorded first."""
        self.ending = ending
        never_begun = ending.never_begun or self.if_never_begun  # what hangs cannot tell by itself
        if never_begun and not self.run_id and ending.outcome in ("failed", "timed out"):
            self.begun(never_begun)
        if not self.run_id:
            return
        assert self.begun_event
        self.metrics |= self.begun_event.metrics | ending.metrics
        tags = {"reason": ending.reason} if ending.reason else {}
        if ending.weights_sha256:
            tags["weights_sha256"] = ending.weights_sha256
        if ending.trace:
            with contextlib.suppress(
                RunFailed
            ):  # on a full disk, say, which is the error to report
                files = {"error.txt": ending.trace.encode()}
                self.recorder.send(SaveArtifacts(self.run_id, files))
        incomplete = "; ".join(filter(None, (ending.incomplete, self._keep_model(ending))))
        if ending.examples:
            files = {examples_file(name): content for name, content in ending.examples.items()}
            self.recorder.post(SaveArtifacts(self.run_id, files))
        if ending.weights:
            self.recorder.post(SaveArtifacts(self.run_id, {WEIGHTS: ending.weights}))
        if incomplete:
            tags["incomplete"] = incomplete
            warnings.warn(incomplete, stacklevel=2)
        self.seconds = time.perf_counter() - self._started
        self.metrics["time/total_seconds"] = self.seconds
        self._deliver(
            EndRun(
                self.run_id,
                ending.outcome,
                epoch=len(self.history),
                metrics=self.metrics,
                tags=tags,
                description=self.describe(self, ending),
            )
        )

    def _open(self, record: RunRecord) -> None:
        self.run_id = self.recorder.send(StartRun(record))

    def _log(self, result: EpochResult) -> None:
        self._deliver(LogEpoch(self.run_id, result.epoch, result.metrics))

    def _deliver(self, message: LogEpoch | EndRun) -> None:
        try:
            if self.waits:
                self.recorder.send(message)
            else:
                self.recorder.post(message)
        except RecordLost as lost:
            if not self.specification.is_resumable:
                raise
            self._record_anew()
            done = number_of(len(self.history), "epoch")
            raise RunFailed(f"{lost} Recorded anew so far: {done}.") from None

    def _record_anew(self) -> None:
        """Record everything so far as another run, which can be resumed."""
        assert self.begun_event
        lost = self.run_id
        RecordRun._open(
            self, self.specification.record(self.experiment, self.execution, self.begun_event)
        )
        for result in self.history:
            self.recorder.send(LogEpoch(self.run_id, result.epoch, result.metrics))
        with contextlib.suppress(FileNotFoundError):  # none was due yet
            checkpoint.hand_over(project.mlruns() / "checkpoints" / lost, self.run_id)

    def _keep_model(self, ending: Ending) -> str:
        """Log the model; returns what went wrong."""
        if not ending.model:
            return ""
        try:
            logged = self.recorder.send(LogModel(self.run_id, ending.model))
        except RunFailed as error:
            return f"no model: {error}"
        self.metrics["time/model_seconds"] = self.metrics.get("time/model_seconds", 0.0) + logged
        return ""

    def add_seconds(self, name: str, started: float) -> None:
        """Add what has passed since `started` to a clock of the run."""
        self.metrics[name] = self.metrics.get(name, 0.0) + time.perf_counter() - started


class StopEarly(Callback):
    """Completes a training that has not improved for some epochs."""

    def __init__(self, run: RecordRun, goal: Goal) -> None:
        """Judge the epochs of a recorded training, which hears of each one first, by a goal."""
        self.run, self.goal = run, goal

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Stop if the best epoch is too long ago."""
        waited = result.epoch - best_epoch(self.run.history, self.goal)
        return "completed" if waited >= self.run.experiment.patience else None


class RecordResumedRun(RecordRun):
    """Goes on with the record of a run; the epochs that it lacks are recorded first."""

    def __init__(
        self,
        stored: StoredRun,
        recorded: frozenset[int],
        recorder: Recorder,
        specification: RunSpecification,
        experiment: Experiment,
        execution: Execution,
        *,
        allowed: tuple[str, ...] = (),
        is_described: bool = True,
        describe: Callable[[RecordRun, Ending], str] = lambda run, ending: "",
    ) -> None:
        """Take a stored run over.

        Args:
            recorded: the epochs that the store has.
            allowed: what has changed since the run began: it is recorded.
            is_described: whether the store has the run's parameters and files; its process may
                have died before it had sent them.
        """
        super().__init__(recorder, specification, experiment, execution, describe=describe)
        self.stored, self.recorded, self.allowed = stored, recorded, allowed
        self.is_described = is_described

    def _open(self, record: RunRecord) -> None:
        self.run_id = self.stored.run_id
        again = None if self.is_described else record
        self.recorder.send(ReopenRun(self.run_id, str(Owner.current()), self.allowed, again))
        for result in self.history:
            self._log(result)

    def _log(self, result: EpochResult) -> None:
        if result.epoch not in self.recorded:
            super()._log(result)


class RecordLongerRun(RecordRun):
    """Records a new run that begins with the epochs of another one."""

    def _open(self, record: RunRecord) -> None:
        super()._open(record)
        for result in self.history:
            self._log(result)


class SaveCheckpoints(Callback):
    """Saves the whole state of a training before its epoch is recorded."""

    def __init__(
        self, group: TrainingGroup, run: RecordRun, folder: Path, *, index: int = 0
    ) -> None:
        """`folder` holds a folder of checkpoints for each run."""
        self.group, self.run, self.folder, self.index = group, run, folder, index
        self._history = checkpoint.HistoryFile()
        self._epochs: list[tuple[int, dict[str, float]]] = []

    def begun(self, event: Begun) -> None:
        """Take over the epochs that the training goes on from."""
        self._epochs = [(result.epoch, result.metrics) for result in event.restored]

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Save the state if it is time."""
        started = time.perf_counter()
        self._epochs.append((result.epoch, result.metrics))
        specification = self.run.specification
        is_last = result.epoch == self.run.experiment.num_epochs
        if is_last or result.epoch % specification.checkpoint_every == 0:
            folder = self.folder / self.run.run_id
            saved = checkpoint.Checkpoint(
                self.run.run_id,
                self.run.experiment.name,
                result.epoch,
                *self._history.write(folder, self._epochs),
                content=self.group.state(self.index),
            )
            checkpoint.save(checkpoint.path_of(folder, result.epoch), saved)
            checkpoint.prune(folder, specification.keep_checkpoints)
        self.run.add_seconds("time/checkpoint_seconds", started)
        return None
