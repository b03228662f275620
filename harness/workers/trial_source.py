"""Trials as trainings: claimed from the queue, recorded, reported to the pruner."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from harness.base.command_line import command_text, run_arguments
from harness.base.formatting import assignments
from harness.execution.callbacks import RecordRun
from harness.execution.driver import Callback, Driven
from harness.execution.events import Begun, Ending
from harness.execution.failures import ending_of
from harness.execution.specification import RunSpecification
from harness.execution.training_group import TrainingTask
from harness.search.claimed_trial import ClaimedTrial
from harness.search.objective import OBJECTIVE
from harness.search.storage import StoredStudy
from harness.search.trial_queue import NothingToClaim, Search, claim
from harness.tracking.messages import Recorder
from harness.tracking.schema import Outcome
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult
from harness.workers.progress import StudyProgress, StudyView, TrainingEnded, WatchWorker


class TrialSource:
    """Gives trials until the budget is spent or the time is over."""

    def __init__(
        self,
        search: Search,
        stored: StoredStudy,
        recorder: Recorder,
        execution: Execution,
        parent: str,
        begun: Begun,
        progress: StudyProgress,
        view: StudyView,
        *,
        timeout: float | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Trials of a stored study, below the run `parent`.

        Args:
            begun: the machine and the data of this process, for trials that no worker begins.
            timeout: seconds after which no trial is claimed.
            on_end: called after each trial, before the view hears of it.
        """
        self.search, self.stored, self.recorder = search, stored, recorder
        self.execution, self.parent, self.own_begun = execution, parent, begun
        self.progress, self.view, self.on_end = progress, view, on_end
        self._deadline = time.monotonic() + timeout if timeout else float("inf")
        self.is_exhausted = False

    def take(self, index: int) -> Driven | None:
        """Claim the next trial for the worker `index`."""
        while not self.is_exhausted:
            if time.monotonic() >= self._deadline:
                self.is_exhausted = True
                break
            try:
                trial = claim(self.search, self.stored)
            except NothingToClaim:
                self.is_exhausted = True
                break
            if trial is None:
                return None
            claimed = ClaimedTrial(self.stored, trial, index)
            try:
                experiment = self.search.study.suggested(trial)
            except Exception as error:  # whatever the study's own function raises
                self._fail(index, claimed, error)
                continue
            return self._driven(index, claimed, experiment)
        return None

    def _driven(self, index: int, claimed: ClaimedTrial, experiment: Experiment) -> Driven:
        trial = claimed.trial
        name = f"trial {trial.number} {assignments(trial.params)}".strip()
        self.progress.started = self.progress.started or time.monotonic()
        self.progress.workers[index].doing = name
        record = RecordRun(
            self.recorder,
            RunSpecification(
                kind="trial",
                name=name,
                mlflow_experiment=self.search.study_name,
                parent=self.parent,
                settings=dataclasses.asdict(self.execution),
                user_tags={"harness.trial": str(trial.number)},
            ),
            experiment,
            self.execution,
            describe=self._describe,
            waits=False,
            if_never_begun=self.own_begun,
        )
        report = _ReportTrial(self, claimed, record)
        show = _ShowTrial(self.view, self.progress, index, claimed, name)
        return Driven(TrainingTask(experiment, with_test=False), [record, report, show])

    def _fail(self, index: int, claimed: ClaimedTrial, error: Exception) -> None:
        """Record and end a trial that has no experiment."""
        experiment = self.search.study.experiment
        ending = ending_of(error, experiment)
        for callback in self._driven(index, claimed, experiment).callbacks:
            callback.ended(ending)

    def _describe(self, run: RecordRun, ending: Ending) -> str:
        """A trial in Markdown: what it was, what came out, how to train the same again."""
        experiment = run.experiment
        options = experiment.fields() | {"threads": self.execution.threads}
        command = command_text(run_arguments(experiment.name, options))
        metric = OBJECTIVE.metric.replace("/", " ")
        value = f"{run.history[-1].metrics[OBJECTIVE.metric]:.4f}" if run.history else "none"
        reason = f" ({ending.reason})" if ending.reason else ""
        assert run.begun_event
        sizes = {part.context: part.size for part in run.begun_event.data}
        return (
            f"**{experiment}**, a trial of the study {self.search.study_name}: "
            f"**{ending.outcome}**{reason} after {len(run.history)} of {experiment.num_epochs} "
            f"epochs. {metric.capitalize()} {value} ({sizes.get('validation', 0):,} images, "
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
        return self.claimed.report(result.epoch, result.metrics, may_prune=may_prune)

    def ended(self, ending: Ending) -> None:
        outcome = "interrupted" if ending.is_blameless else ending.outcome
        if outcome != "interrupted":
            # The record is complete before the study knows the outcome.
            self.source.recorder.wait()
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
        super().__init__(view, progress, number, OBJECTIVE.metric)
        self.claimed, self.name = claimed, name

    def ended(self, ending: Ending) -> None:
        super().ended(ending)
        if ending.outcome != "interrupted" and not ending.is_blameless:
            self.view.trial_ended(
                self.progress,
                TrainingEnded(
                    self.name,
                    ending.outcome,
                    self.claimed.value,
                    self.claimed.num_epochs,
                    ending.reason,
                ),
            )
