"""How far a study is, and who is shown it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.base.goals import Goal
from harness.execution.driver import Callback
from harness.execution.events import Ending
from harness.search.trial_queue import Counts
from harness.tracking.schema import Outcome
from harness.training.loop import EpochResult


@dataclass
class WorkerState:
    """What a worker was last heard to do.

    Attributes:
        doing: the name of its training, or a word.
        value: the first objective after its last epoch; None if it has none yet, or none to show.
    """

    doing: str = "starting"
    epoch: int = 0
    value: float | None = None


@dataclass
class StudyProgress:
    """How far a study is.

    Attributes:
        started: when this process began its first trial, by the monotonic clock; 0 before that.
        finished_before: trials that had finished before this process began.
        goals: what the study optimises.
        best_value: the best value of a single objective so far; None with several.
        confirming: how far the confirmation is; empty before it begins.
    """

    goals: tuple[Goal, ...]
    n_trials: int
    counts: Counts
    best_value: float | None
    finished_before: int
    workers: list[WorkerState] = field(default_factory=list)
    started: float = 0.0
    confirming: str = ""

    @property
    def trials_per_hour(self) -> float:
        """Trials that this process has finished, scaled to an hour."""
        if not self.started:
            return 0.0
        done = self.counts.finished - self.finished_before
        return done / (time.monotonic() - self.started) * 3600

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent, at the speed so far; None before the first trial has ended."""
        left = self.n_trials - self.counts.finished
        return left / self.trials_per_hour * 3600 if self.trials_per_hour else None


@dataclass(frozen=True)
class TrainingEnded:
    """A trial or a confirmation that has ended, as a line on the screen says it.

    Attributes:
        values: the objectives of a trial, or the metrics that confirm them; empty if there are
            none.
        place: a trial's, among those that have finished; 0 for a confirmation.
    """

    name: str
    outcome: Outcome
    values: Mapping[str, float]
    num_epochs: int
    reason: str
    place: int = 0


class StudyView:
    """Shows a study on a screen; every method does nothing unless overridden."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def opened(self, code: str) -> None:
        """The record is open; `code` says what has changed since the commit, or is empty."""

    def started(self, progress: StudyProgress) -> None:
        """The workers are starting."""

    def changed(self, progress: StudyProgress) -> None:
        """A worker begins a training, or has finished an epoch."""

    def trial_ended(self, progress: StudyProgress, trial: TrainingEnded) -> None:
        """A trial has ended; the progress counts it already."""

    def confirmed(self, progress: StudyProgress, confirmation: TrainingEnded) -> None:
        """A confirmation has ended."""

    def worker_died(self, progress: StudyProgress, reason: str) -> None:
        """A worker has died in the middle of a training, which is queued again."""

    def stopped(self) -> None:
        """Nothing more will change."""


class WatchWorker(Callback):
    """Keeps the state of one worker while it trains."""

    def __init__(
        self, view: StudyView, progress: StudyProgress, number: int, metric: str | None
    ) -> None:
        """`metric` is shown after each epoch, if there is one to show."""
        self.view, self.progress, self.number, self.metric = view, progress, number, metric

    @property
    def worker(self) -> WorkerState:
        """The worker's state."""
        return self.progress.workers[self.number]

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Show the epoch."""
        self.worker.epoch = result.epoch
        self.worker.value = result.metrics.get(self.metric) if self.metric else None
        self.view.changed(self.progress)
        return None

    def ended(self, ending: Ending) -> None:
        """The worker is free again."""
        self.progress.workers[self.number] = WorkerState("idle")
