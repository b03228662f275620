"""Claims: how workers take trials, so that the budget is met exactly and no trial is lost.

Under one lock, `claim` gives the trials of dead processes back, counts, and asks for the next one.
What happened to a trial is its user attribute `outcome`; who works on it is `owner`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from harness.ownership import Owner
from harness.search.storage import (
    PrunerName,
    SamplerName,
    lock,
    make_pruner,
    make_sampler,
)
from harness.search.study import Study

LONGEST_FAILURE_ROW = 5
"""A study stops after this many failures in a row: the next one would fail as well."""

MOST_RETRIES = 2
"""How often the trial of a dead process is queued again before it counts as failed."""


@dataclass(frozen=True)
class Search:
    """How a study is searched: everything that a claim needs."""

    study: Study
    study_name: str
    url: str
    n_trials: int
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    sampler_seed: int = 0

    def stored(self, storage: RDBStorage, draws: int = 0) -> optuna.Study:
        """The stored study, with the sampler for the draw after `draws` others."""
        return optuna.load_study(
            study_name=self.study_name,
            storage=storage,
            sampler=make_sampler(self.sampler, self.sampler_seed, draws, self.study),
            pruner=make_pruner(self.pruner, self.study.experiment.num_epochs),
        )


@dataclass(frozen=True)
class Counts:
    """How far a study is; each trial is in one of the first five."""

    completed: int
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """Trials that count towards the budget."""
        return self.completed + self.pruned + self.diverged + self.failed


class Finished(Exception):
    """There is nothing more to claim: the budget is spent, or too many trials failed in a row."""


def count(trials: Sequence[FrozenTrial]) -> Counts:
    """Count trials by outcome; interrupted ones, whose copies are queued, count nowhere."""
    outcomes = [trial.user_attrs.get("outcome") for trial in trials if trial.state.is_finished()]
    states = [trial.state for trial in trials]
    return Counts(
        completed=outcomes.count("completed"),
        pruned=outcomes.count("pruned"),
        diverged=outcomes.count("diverged"),
        failed=outcomes.count("failed"),
        running=states.count(TrialState.RUNNING),
        waiting=states.count(TrialState.WAITING),
    )


def claim(search: Search, storage: RDBStorage) -> Trial | None:
    """Take the next trial; None where all that is left is in the hands of other workers.

    Raises:
        Finished: the budget is spent, or the last trials all failed.
    """
    with lock(search.url):
        stored = search.stored(storage)
        repair(stored)
        trials = stored.get_trials(deepcopy=False)
        counts = count(trials)
        if counts.finished >= search.n_trials:
            raise Finished("the budget is spent")
        if reason := _failure_row(trials):
            raise Finished(reason)
        if counts.finished + counts.running >= search.n_trials:
            return None
        stored = search.stored(storage, draws=counts.finished + counts.running)
        with warnings.catch_warnings():
            # Trial 0 holds the experiment's defaults, inside the searched range or not.
            warnings.simplefilter("ignore")
            trial = stored.ask(dict(search.study.space))
        trial.set_user_attr("owner", str(Owner.current()))
        return trial


def repair(stored: optuna.Study) -> int:
    """Give the running trials of dead processes of this machine back; return how many."""
    repaired = 0
    for trial in stored.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get("owner")
        # Without an owner its process died between asking and signing, both under the lock.
        if owner is None or Owner.from_text(owner).is_dead:
            give_back(stored, trial, retries=trial.user_attrs.get("retries", 0) + 1)
            repaired += 1
    return repaired


def release(stored: optuna.Study) -> int:
    """Give back the running trials of other machines, which only a person can know to be dead."""
    foreign = [
        trial
        for trial in stored.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if "owner" in trial.user_attrs and not Owner.from_text(trial.user_attrs["owner"]).is_here
    ]
    for trial in foreign:
        give_back(stored, trial, retries=trial.user_attrs.get("retries", 0))
    return len(foreign)


def give_back(stored: optuna.Study, trial: Trial | FrozenTrial, retries: int) -> None:
    """End a trial as interrupted and queue its parameters again, at most twice after deaths."""
    storage, trial_id = stored._storage, trial._trial_id
    frozen = storage.get_trial(trial_id)
    lost = retries > MOST_RETRIES
    storage.set_trial_user_attr(trial_id, "outcome", "failed" if lost else "interrupted")
    if lost:
        storage.set_trial_user_attr(trial_id, "reason", "its process died three times")
    stored.tell(trial.number, state=TrialState.FAIL)
    if not lost:
        attributes = {"retries": retries, "retry_of": trial.number}
        # What was queued and not asked for yet belongs to a trial as well.
        queued = frozen.system_attrs.get("fixed_params", {})
        stored.enqueue_trial({**queued, **frozen.params}, user_attrs=attributes)


def tell(
    stored: optuna.Study,
    trial: Trial,
    outcome: Literal["completed", "pruned", "diverged", "failed"],
    value: float | None,
    **attributes: Any,
) -> None:
    """End a trial with its outcome.

    A diverged trial counts as a validation accuracy of 0: every sampler learns from that.
    """
    for name, attribute in {**attributes, "outcome": outcome}.items():
        trial.set_user_attr(name, attribute)
    if outcome == "failed":
        stored.tell(trial, state=TrialState.FAIL)
    elif outcome == "pruned":
        stored.tell(trial, state=TrialState.PRUNED)
    else:
        stored.tell(trial, 0.0 if outcome == "diverged" else value)


def best(stored: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the highest validation accuracy; the earliest among equals."""
    completed = [
        trial
        for trial in stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("outcome") == "completed"
    ]
    return max(completed, key=lambda trial: (trial.value, -trial.number), default=None)


def _failure_row(trials: Sequence[FrozenTrial]) -> str:
    """Why a study that has only failed lately should stop; "" if it should not."""
    finished = [
        trial
        for trial in trials
        if trial.state.is_finished() and trial.user_attrs.get("outcome") != "interrupted"
    ]
    finished.sort(key=lambda trial: str(trial.datetime_complete))
    last = finished[-LONGEST_FAILURE_ROW:]
    if len(last) < LONGEST_FAILURE_ROW or any(
        trial.user_attrs.get("outcome") != "failed" for trial in last
    ):
        return ""
    reason = last[-1].user_attrs.get("reason", "unknown")
    return f"the last {LONGEST_FAILURE_ROW} trials failed: {reason}"
