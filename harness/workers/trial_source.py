"""Trials as trainings: claimed from the queue, recorded, reported to the pruner."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.base.command_line import run_arguments
from harness.base.formatting import assignments, capitalized, metric_text
from harness.base.trials import metric_in_words
from harness.execution.callbacks import RecordRun, StopEarly
from harness.execution.descriptions import repeating
from harness.execution.driver import Callback, Driven
from harness.execution.events import Begun, Ending
from harness.execution.failures import ending_of
from harness.execution.training_group import TrainingTask
from harness.search.claimed_trial import ClaimedTrial
from harness.search.trial_queue import NothingToClaim, claim, place_of
from harness.tracking.schema import Outcome
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult
from harness.workers.progress import StudyProgress, StudyView, TrainingEnded, WatchWorker
from harness.workers.study_context import StudyContext


class TrialSource:
    """Gives trials until the budget is spent or the time is over."""

    def __init__(
        self,
        context: StudyContext,
        begun: Begun,
        *,
        timeout: float | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Trials of a stored study.

        Args:
            begun: the machine and the data of this process, for trials that no worker begins.
            timeout: seconds after which no trial is claimed.
            on_end: called after each trial, before the view hears of it.
        """
        self.context, self.own_begun, self.on_end = context, begun, on_end
        self._deadline = time.monotonic() + timeout if timeout else float("inf")
        self.is_exhausted = False

    def take(self, index: int) -> Driven | None:
        """Claim the next trial for the worker `index`."""
        while not self.is_exhausted:
            if time.monotonic() >= self._deadline:
                self.is_exhausted = True
                break
            try:
                trial = claim(self.context.search, self.context.stored)
            except NothingToClaim:
                self.is_exhausted = True
                break
            if trial is None:
                return None
            claimed = ClaimedTrial(self.context.stored, trial, index, self.context.goals)
            try:
                experiment = self.context.search.study.suggested(trial)
            except Exception as error:  # whatever the study's own function raises
                self._fail(index, claimed, error)
                continue
            return self._driven(index, claimed, experiment)
        return None

    def _driven(self, index: int, claimed: ClaimedTrial, experiment: Experiment) -> Driven:
        trial = claimed.trial
        name = f"trial {trial.number} {assignments(trial.params)}".strip()
        progress = self.context.progress
        progress.started = progress.started or time.monotonic()
        progress.workers[index].doing = name
        record = self.context.record(
            experiment,
            "trial",
            name,
            {"harness.trial": str(trial.number)},
            {goal.metric: goal.best for goal in self.context.goals},
            self._describe,
            if_never_begun=self.own_begun,
        )
        report = _ReportTrial(self, claimed, record)
        show = _ShowTrial(self.context.view, progress, index, claimed, name)
        callbacks: list[Callback] = [record, report, show]
        goal = self.context.goals[0]
        if experiment.patience and goal.metric.startswith("validation/"):
            callbacks.insert(1, StopEarly(record, goal))
        limit = self.context.search.trial_timeout
        return Driven(TrainingTask(experiment, with_test=False, time_limit=limit), callbacks)

    def _fail(self, index: int, claimed: ClaimedTrial, error: Exception) -> None:
        """Record and end a trial that has no experiment."""
        experiment = self.context.search.study.experiment
        ending = ending_of(error, experiment)
        for callback in self._driven(index, claimed, experiment).callbacks:
            callback.ended(ending)

    def _describe(self, run: RecordRun, ending: Ending) -> str:
        """A trial in Markdown: what it was, what came out, how to train the same again."""
        experiment = run.experiment
        options = experiment.fields() | {"threads": run.execution.threads}
        command = repeating(run, run_arguments(experiment.name, options))
        last = run.last_metrics
        values = ", ".join(
            f"{metric_in_words(goal.metric)} {metric_text(last.get(goal.metric))}"
            for goal in self.context.goals
        )
        reason = f" ({ending.reason})" if ending.reason else ""
        assert run.begun_event
        sizes = {part.context: part.size for part in run.begun_event.data}
        return (
            f"**{experiment}**, a trial of the study {self.context.search.study_name}: "
            f"**{ending.outcome}**{reason} after {len(run.history)} of {experiment.num_epochs} "
            f"epochs. {capitalized(values)} ({sizes.get('validation', 0):,} examples, "
            f"n = 1 seed).\n\nTrain it again with:\n\n    {command}"
        )


class _ReportTrial(Callback):
    """Reports a training to the pruner, and its end to the study."""

    def __init__(self, source: TrialSource, claimed: ClaimedTrial, record: RecordRun) -> None:
        self.source, self.claimed, self.record = source, claimed, record
        self.is_named = False

    def begun(self, event: Begun) -> None:
        self.claimed.set_run_id(self.record.run_id)
        self.is_named = True

    def epoch(self, result: EpochResult) -> Outcome | None:
        is_last = result.epoch == self.record.experiment.num_epochs
        may_prune = not (is_last or result.diverged)
        return self.claimed.report(result.epoch, self.record.last_metrics, may_prune=may_prune)

    def ended(self, ending: Ending) -> None:
        outcome = "interrupted" if ending.is_blameless else ending.outcome
        if outcome != "interrupted":
            # The record is complete before the study knows the outcome.
            self.source.context.recorder.wait()
            if not self.is_named:
                self.claimed.set_run_id(self.record.run_id)
        self.claimed.end(outcome, ending.reason, is_lost=ending.is_lost)
        self.source.on_end()


class _ShowTrial(WatchWorker):
    """Shows a trial on the screen."""

    def __init__(
        self,
        view: StudyView,
        progress: StudyProgress,
        number: int,
        claimed: ClaimedTrial,
        name: str,
    ) -> None:
        super().__init__(view, progress, number, claimed.goals[0].metric)
        self.claimed, self.name = claimed, name

    def ended(self, ending: Ending) -> None:
        super().ended(ending)
        if ending.is_lost and self.claimed.is_requeued:
            self.view.worker_died(self.progress, ending.reason)
        elif ending.is_lost or not (ending.outcome == "interrupted" or ending.is_blameless):
            self.view.trial_ended(
                self.progress,
                TrainingEnded(
                    self.name,
                    "failed" if ending.is_lost else ending.outcome,
                    {
                        goal.metric: value
                        for goal, value in zip(
                            self.claimed.goals, self.claimed.values, strict=False
                        )
                    },
                    self.claimed.num_epochs,
                    ending.reason,
                    place_of(self.claimed.stored, self.claimed.trial.number),
                ),
            )
