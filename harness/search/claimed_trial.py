"""A trial that this process has claimed: reported epoch by epoch, ended once."""

from __future__ import annotations

import time
from typing import Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from harness.base.errors import RunFailed
from harness.base.goals import Goal
from harness.search.trial_queue import MOST_RETRIES, goals_of, requeue, tell

Stop = Literal["pruned", "interrupted"]


class ClaimedTrial:
    """A running trial of a stored study.

    Attributes:
        goals: what the study optimises.
        values: the objectives after the last reported epoch; empty before the first.
        num_epochs: how many epochs were reported.
        training_seconds: in which these were trained and evaluated.
        is_requeued: whether it was interrupted and its parameters are in the queue again.
    """

    def __init__(
        self,
        stored: optuna.Study,
        trial: Trial,
        worker: int = 0,
        goals: tuple[Goal, ...] | None = None,
    ) -> None:
        """A trial that is claimed.

        Args:
            worker: the number of this process's worker that trains the trial.
            goals: what the study optimises; read from the storage if not given.
        """
        self.stored, self.trial, self.worker = stored, trial, worker
        self.goals = goals or goals_of(stored)
        self.values: list[float] = []
        self.num_epochs = 0
        self.training_seconds = 0.0
        self.is_requeued = False
        self._started = time.monotonic()

    def set_run_id(self, run_id: str) -> None:
        """Name the run that records the trial."""
        self.trial.set_user_attr("run_id", run_id)

    def report(self, epoch: int, metrics: dict[str, float], *, may_prune: bool) -> Stop | None:
        """Tell the pruner about an epoch.

        Returns:
            How the trial is to end, if it is to end now: `pruned`, or `interrupted` if someone
            else has requeued it meanwhile.

        Raises:
            RunFailed: an objective was not recorded.
        """
        for goal in self.goals:
            if goal.metric not in metrics:
                raise RunFailed(f"objective: {goal.metric} was not recorded in epoch {epoch}.")
        self.values, self.num_epochs = [metrics[goal.metric] for goal in self.goals], epoch
        self.training_seconds += metrics["time/train_seconds"] + metrics["time/evaluate_seconds"]
        if len(self.values) > 1:  # no single value says how good the epoch was
            return None
        try:
            self.trial.report(self.values[0], epoch)
        except UpdateFinishedTrialError:
            return "interrupted"
        return "pruned" if may_prune and self.trial.should_prune() else None

    def end(self, outcome: str, reason: str = "", *, is_lost: bool = False) -> bool:
        """End the trial: tell the study its outcome, or requeue it if it was interrupted.

        Args:
            is_lost: whether its process died; a trial is not tried forever.

        Returns:
            False if someone else had requeued it before.
        """
        frozen = self.stored._storage.get_trial(self.trial._trial_id)
        if frozen.state.is_finished():
            return False
        if outcome == "interrupted":
            retries = frozen.user_attrs.get("retries", 0) + is_lost
            requeue(self.stored, frozen, retries)
            self.is_requeued = retries <= MOST_RETRIES
            return True
        attributes: dict[str, Any] = {
            # The storage has the times of day, and a clock may be set meanwhile.
            "seconds": time.monotonic() - self._started,
            "training_seconds": self.training_seconds,
            "worker": self.worker,
        }
        if len(self.goals) > 1:  # otherwise the reported values say it
            attributes["num_epochs"] = self.num_epochs
        if reason:
            attributes["reason"] = reason
        try:
            tell(self.stored, self.trial, outcome, self.values, attributes)
        except UpdateFinishedTrialError:
            return False
        return True
