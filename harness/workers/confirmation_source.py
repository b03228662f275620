"""Confirmations as trainings: each configuration with each seed, tested once, at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from harness.base.trials import confirmed_metric
from harness.execution.callbacks import RecordRun
from harness.execution.descriptions import describe_run
from harness.execution.driver import Callback, Driven
from harness.execution.events import Ending
from harness.execution.training_group import TrainingTask
from harness.search.confirmations import confirmed_experiment, is_confirmed, store_confirmation
from harness.search.trial_queue import MOST_RETRIES
from harness.tracking.schema import ENDED
from harness.training.experiment import Experiment
from harness.workers.progress import StudyProgress, StudyView, TrainingEnded, WatchWorker
from harness.workers.study_context import StudyContext


class ConfirmationSource:
    """Gives every configuration with every seed; the stored ones are not trained again.

    Attributes:
        failures: why confirmations have failed.
    """

    def __init__(
        self,
        context: StudyContext,
        configurations: Mapping[str, Experiment],
        seeds: Sequence[int],
    ) -> None:
        self.context = context
        self.failures: list[str] = []
        self._waiting = [
            _Confirmation(name, seeded)
            for seed in seeds
            for name, experiment in configurations.items()
            if not is_confirmed(context.stored, seeded := confirmed_experiment(experiment, seed))
        ]
        self._total = len(self._waiting)
        self._ended = 0

    @property
    def is_exhausted(self) -> bool:
        """See `Source`; one whose worker died waits again."""
        return not self._waiting

    def take(self, index: int) -> Driven | None:
        """The next confirmation for the worker `index`."""
        if not self._waiting:
            return None
        confirmation = self._waiting.pop(0)
        progress = self.context.progress
        progress.workers[index].doing = confirmation.name
        record = self.context.record(
            confirmation.experiment,
            "confirm",
            f"{confirmation.configuration} seed={confirmation.experiment.seed}",
            {"harness.config": confirmation.configuration},
            {confirmed_metric(goal.metric): goal.best for goal in self.context.goals},
            describe_run,
        )
        return Driven(
            TrainingTask(
                confirmation.experiment,
                evaluate_each_epoch=False,
                keep=frozenset({"examples"}),
            ),
            [
                record,
                _StoreConfirmation(self, confirmation, record),
                _ShowConfirmation(
                    self.context.view,
                    progress,
                    index,
                    confirmation,
                    record,
                    [confirmed_metric(goal.metric) for goal in self.context.goals],
                ),
            ],
        )

    def requeue(self, confirmation: _Confirmation, reason: str) -> None:
        """Queue a confirmation again whose worker died, unless that has happened too often."""
        if confirmation.retries == MOST_RETRIES:
            self.failures.append(reason)
            return
        again = dataclasses.replace(confirmation, retries=confirmation.retries + 1)
        self._waiting.insert(0, again)

    def count(self) -> None:
        """Count one more that has ended."""
        self._ended += 1
        self.context.progress.confirming = f"{self._ended} of {self._total}"


@dataclasses.dataclass(frozen=True)
class _Confirmation:
    configuration: str
    experiment: Experiment
    retries: int = 0

    @property
    def name(self) -> str:
        return f"{self.configuration}, seed {self.experiment.seed}"


class _StoreConfirmation(Callback):
    """Stores what a confirmation came to."""

    def __init__(
        self, source: ConfirmationSource, confirmation: _Confirmation, record: RecordRun
    ) -> None:
        self.source, self.confirmation, self.record = source, confirmation, record

    def ended(self, ending: Ending) -> None:
        # The record is complete before the study stores the result.
        self.source.context.recorder.wait()
        if ending.is_lost:
            self.source.requeue(self.confirmation, ending.reason)
            return
        if ending.outcome == "interrupted" or ending.is_blameless:
            return
        self.source.count()
        if ending.outcome == "failed":
            self.source.failures.append(ending.reason)
            return
        metrics = self.record.last_metrics
        store_confirmation(
            self.source.context.stored,
            self.confirmation.experiment,
            {
                "name": self.confirmation.name,
                "run_id": self.record.run_id,
                "outcome": ending.outcome,
                # JSON has no NaN.
                "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
                "seconds": self.record.seconds,
            },
        )


class _ShowConfirmation(WatchWorker):
    """Shows a confirmation on the screen."""

    def __init__(
        self,
        view: StudyView,
        progress: StudyProgress,
        number: int,
        confirmation: _Confirmation,
        record: RecordRun,
        metrics: Sequence[str],
    ) -> None:
        super().__init__(view, progress, number, None)
        self.confirmation, self.record, self.metrics = confirmation, record, metrics

    def ended(self, ending: Ending) -> None:
        super().ended(ending)
        if ending.is_lost and self.confirmation.retries < MOST_RETRIES:
            self.view.worker_died(self.progress, ending.reason)
        if ending.outcome not in ENDED:
            return
        history = self.record.history
        metrics = self.record.last_metrics
        self.view.confirmed(
            self.progress,
            TrainingEnded(
                self.confirmation.name,
                ending.outcome,
                {name: metrics[name] for name in self.metrics if name in metrics},
                len(history),
                ending.reason,
            ),
        )
