"""The coordinator of a study: drives its trials and confirmations, and keeps its record."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType

from harness.base.errors import RunFailed
from harness.base.goals import Goal
from harness.base.ownership import Owner
from harness.base.signals import Interrupted, deferred
from harness.execution.driver import drive
from harness.execution.events import Begun
from harness.execution.training_group import TrainingGroup
from harness.search import trial_queue
from harness.search.storage import StoredStudy, check_is_there, lock
from harness.search.trial_queue import Counts, Search
from harness.tracking.messages import (
    EndRun,
    LogEpoch,
    ReconcileChildren,
    Recorder,
    ReopenRun,
    StartRun,
)
from harness.tracking.schema import Outcome, RunRecord
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.workers.confirmation_source import ConfirmationSource
from harness.workers.progress import StudyProgress, StudyView, WorkerState
from harness.workers.study_context import StudyContext
from harness.workers.trial_source import TrialSource


class Coordinator:
    """Runs a study on a training group and keeps its record; use it in a `with` statement.

    However the block ends, the trials that were running go back into the queue, and no run of
    theirs stays open.
    """

    def __init__(
        self,
        search: Search,
        stored: StoredStudy,
        group: TrainingGroup,
        recorder: Recorder,
        execution: Execution,
        view: StudyView,
    ) -> None:
        self.group = group
        counts = _counts(stored)
        progress = StudyProgress(
            search.study.goals,
            search.n_trials,
            counts,
            _best_value(stored, search.study.goals),
            counts.finished,
            [WorkerState() for _ in range(group.size)],
        )
        self.context = StudyContext(search, stored, recorder, execution, progress, view)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        context = self.context
        with deferred():
            context.view.stopped()
            try:
                # The error that ended the block matters more.
                with contextlib.suppress(RunFailed, KeyError) if error else nullcontext():
                    self._reconcile()
                if error and context.run_id:
                    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
                    outcome: Outcome = "interrupted" if interrupted else "failed"
                    end = EndRun(context.run_id, outcome, tags={"reason": str(error)})
                    context.recorder.send(end)
            except RunFailed:
                if error is None:
                    raise

    def begin(self, record: RunRecord) -> None:
        """Begin the study's own run, or go on with the one that the stored study names."""
        context = self.context
        with lock(context.search.url, f"run of {context.search.study_name}"):
            context.run_id = context.stored.user_attrs.get("run_id", "")
            if context.run_id:
                try:
                    context.recorder.send(ReopenRun(context.run_id, str(Owner.current())))
                except RunFailed as error:
                    raise RunFailed(
                        f"{error}\nThe study is recorded in that run. Restore it, set "
                        "MLFLOW_TRACKING_URI to the store that has it, or choose another "
                        "--study-name."
                    ) from None
                self._reconcile()
            else:
                context.run_id = context.recorder.send(StartRun(record))
                context.stored.set_user_attr("run_id", context.run_id)
        context.stored.set_user_attr("trial_timeout", context.search.trial_timeout)
        context.view.started(context.progress)

    def search_trials(self, begun: Begun, timeout: float | None) -> None:
        """Drive trials until the budget is spent or the time is over.

        Args:
            begun: the machine and the data of this process.
            timeout: seconds after which no trial is claimed.

        Raises:
            RunFailed: too many trials failed in a row.
        """
        source = TrialSource(self.context, begun, timeout=timeout, on_end=self._count)
        drive(self.group, source)
        self._count()
        trials = self.context.stored.get_trials(deepcopy=False)
        reason = trial_queue.failures_in_a_row(self.context.stored, trials)
        if reason and not self.is_budget_spent:
            raise RunFailed(f"The study stopped: {reason}.")

    @property
    def is_budget_spent(self) -> bool:
        """Whether as many trials as asked for have finished."""
        return self.context.progress.counts.finished >= self.context.search.n_trials

    def confirm(self, configurations: Mapping[str, Experiment], seeds: Sequence[int]) -> None:
        """Train each configuration again with each seed, and test it once.

        Raises:
            RunFailed: one of the trainings failed.
        """
        search = self.context.search
        with lock(search.url, f"confirmation of {search.study_name}"):
            source = ConfirmationSource(self.context, configurations, seeds)
            drive(self.group, source)
        if source.failures:
            raise RunFailed(f"A confirmation failed: {source.failures[0]}")

    def _reconcile(self) -> None:
        """Make the record agree with the storage about trials whose process died."""
        search = self.context.search
        check_is_there(search.url, search.study_name)
        if self.context.run_id:
            outcomes = trial_queue.outcomes(self.context.stored)
            self.context.recorder.send(ReconcileChildren(self.context.run_id, outcomes))

    def _count(self) -> None:
        """Count, and record how far the study is, once for each number of finished trials."""
        context, progress = self.context, self.context.progress
        before = progress.counts.finished
        progress.counts, best_value = (
            _counts(context.stored),
            _best_value(context.stored, context.goals),
        )
        if progress.counts.finished == before:
            return
        metrics: dict[str, float] = {
            "study/completed": progress.counts.completed,
            "study/pruned": progress.counts.pruned,
            "study/diverged": progress.counts.diverged,
            "study/collapsed": progress.counts.collapsed,
            "study/timed_out": progress.counts.timed_out,
            "study/failed": progress.counts.failed,
            "study/trials_per_hour": progress.trials_per_hour,
        }
        if best_value is not None:
            progress.best_value = metrics["study/best_value"] = best_value
        context.recorder.post(LogEpoch(context.run_id, progress.counts.finished, metrics))


def _best_value(stored: StoredStudy, goals: tuple[Goal, ...]) -> float | None:
    """The best value of a single objective; with several there is none."""
    if len(goals) > 1:
        return None
    return next((trial.values[0] for trial in trial_queue.chosen(stored, goals)), None)


def _counts(stored: StoredStudy) -> Counts:
    return trial_queue.count(stored.get_trials(deepcopy=False))
