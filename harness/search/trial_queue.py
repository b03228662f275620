"""The queue of trials: the budget is met exactly, and no trial is lost.

Under one lock, `claim` requeues the trials of dead processes, counts, and asks for the next trial.
The user attribute `outcome` of a trial says what happened to it, `owner` who works on it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from harness.base.errors import BadRequest
from harness.base.goals import Goal
from harness.base.ownership import Owner, is_owner_dead
from harness.base.trials import INFEASIBLE
from harness.search.objective import dominates
from harness.search.samplers import (
    PrunerName,
    SamplerName,
    constrain,
    grid,
    make_pruner,
    make_sampler,
)
from harness.search.storage import check_is_there, lock
from harness.search.study import SamplerFactory, Study

MOST_FAILURES_IN_A_ROW = 5
"""A study stops after this many failures in a row, since the next trial would fail too."""

MOST_RETRIES = 2
"""How often a trial is queued again after its process died, before it counts as failed."""


@dataclass(frozen=True)
class Search:
    """A study and how to search it: everything that a claim needs.

    Attributes:
        data: digests of the examples that the trials see, by what they are used for.
        trial_timeout: seconds after which a trial is ended; None if it may take any time.
        version: number of the code that the trials are trained with, counted from 1; it grows when
            a study goes on with changed code.
    """

    study: Study
    study_name: str
    url: str
    n_trials: int
    sampler: SamplerName | SamplerFactory = "tpe"
    pruner: PrunerName = "median"
    sampler_seed: int = 0
    data: Mapping[str, str] = field(default_factory=dict)
    trial_timeout: float | None = None
    version: int = 1

    def stored(self, storage: RDBStorage) -> optuna.Study:
        """The stored study. Keep the object: it caches the finished trials."""
        return optuna.load_study(
            study_name=self.study_name,
            storage=storage,
            sampler=make_sampler(self.sampler, self.sampler_seed, 0),
            pruner=make_pruner(self.pruner, self.study.experiment.num_epochs),
        )


@dataclass(frozen=True)
class Counts:
    """The number of trials in each state; interrupted ones count nowhere."""

    completed: int
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int
    timed_out: int = 0
    collapsed: int = 0

    @property
    def finished(self) -> int:
        """The trials that count towards the budget."""
        infeasible = self.diverged + self.collapsed + self.timed_out
        return self.completed + self.pruned + infeasible + self.failed

    def __str__(self) -> str:
        return (
            f"{self.completed} completed, {self.pruned} pruned, {self.diverged} diverged, "
            f"{f'{self.collapsed} collapsed, ' if self.collapsed else ''}"
            f"{f'{self.timed_out} timed out, ' if self.timed_out else ''}{self.failed} failed"
        )


def place_of(stored: optuna.Study, number: int) -> int:
    """How many trials had finished when this one had, itself included.

    Several commands may end trials of one study at once: what each of them counts afterwards is
    the same for both.
    """
    ends = {
        trial.number: (trial.datetime_complete, trial.number)
        for trial in stored.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.user_attrs.get("outcome") != "interrupted"
    }
    return sum(end <= ends[number] for end in ends.values()) if number in ends else len(ends)


class NothingToClaim(Exception):
    """Nothing is left to claim: the budget is spent, or too many trials failed in a row."""


def count(trials: Sequence[FrozenTrial]) -> Counts:
    """Count trials by outcome. Interrupted ones are left out: their copies are in the queue."""
    outcomes = [trial.user_attrs.get("outcome") for trial in trials if trial.state.is_finished()]
    states = [trial.state for trial in trials]
    return Counts(
        completed=outcomes.count("completed"),
        pruned=outcomes.count("pruned"),
        diverged=outcomes.count("diverged"),
        timed_out=outcomes.count("timed out"),
        collapsed=outcomes.count("collapsed"),
        failed=outcomes.count("failed"),
        running=states.count(TrialState.RUNNING),
        waiting=states.count(TrialState.WAITING),
    )


def claim(search: Search, stored: optuna.Study) -> Trial | None:
    """Take the next trial. Returns None if every remaining trial is running elsewhere.

    Raises:
        NothingToClaim: the budget is spent, or the last trials all failed.
    """
    with lock(search.url):
        check_is_there(search.url, search.study_name)
        trials = requeue_orphans(stored)
        counts = count(trials)
        if counts.finished >= search.n_trials:
            raise NothingToClaim("the budget is spent")
        if reason := failures_in_a_row(stored, trials):
            raise NothingToClaim(reason)
        if counts.finished + counts.running >= search.n_trials:
            return None
        if search.sampler == "grid" and not counts.waiting:
            taken = [trial.params for trial in trials]
            point = next((point for point in grid(search.study) if point not in taken), None)
            if point is None:
                return None
            stored.enqueue_trial(point)
        draws = counts.finished + counts.running
        stored.sampler = make_sampler(search.sampler, search.sampler_seed, draws)
        with warnings.catch_warnings():
            # Trial 0 has the experiment's defaults, which may be out of range.
            warnings.simplefilter("ignore")
            trial = stored.ask(dict(search.study.space))
        trial.set_user_attr("owner", str(Owner.current()))
        if search.version > 1:
            trial.set_user_attr("version", search.version)
        return trial


def requeue_orphans(stored: optuna.Study) -> list[FrozenTrial]:
    """Requeue the running trials of this machine's dead processes; return all trials.

    The caller holds the lock.
    """
    trials = stored.get_trials(deepcopy=False)
    orphans = {trial.number for trial in _running(trials) if _is_orphan(trial)}
    if not orphans:
        return trials
    # Meanwhile a process may have ended its trial in order, and then itself.
    for trial in _running(stored.get_trials(deepcopy=False)):
        if trial.number in orphans:
            requeue(stored, trial, retries=trial.user_attrs.get("retries", 0) + 1)
    return stored.get_trials(deepcopy=False)


def outcomes(stored: optuna.Study) -> dict[str, str]:
    """The outcome of each trial (or `running`), by the id of its run."""
    return {
        trial.user_attrs["run_id"]: (
            str(trial.user_attrs.get("outcome")) if trial.state.is_finished() else "running"
        )
        for trial in stored.get_trials(deepcopy=False)
        if isinstance(trial.user_attrs.get("run_id"), str)
    }


def release(stored: optuna.Study) -> int:
    """Requeue the running trials of other machines; return how many there were."""
    trials = foreign(stored)
    for trial in trials:
        requeue(stored, trial, retries=trial.user_attrs.get("retries", 0))
    return len(trials)


def foreign(stored: optuna.Study) -> list[FrozenTrial]:
    """The running trials of other machines; only a person can know that those are dead."""
    return [
        trial
        for trial in stored.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if "owner" in trial.user_attrs and not _is_here(trial.user_attrs["owner"])
    ]


def requeue(stored: optuna.Study, trial: FrozenTrial, retries: int) -> None:
    """End a trial as interrupted and queue its parameters again.

    A trial whose process has died `MOST_RETRIES` times before is ended as failed instead.
    """
    storage, trial_id = stored._storage, trial._trial_id
    attributes: dict[str, Any] = {"outcome": "interrupted"}
    if retries > MOST_RETRIES:
        attributes = {"outcome": "failed", "reason": f"its process died {retries} times"}
    elif not any(
        t.user_attrs.get("retry_of") == trial.number for t in stored.get_trials(deepcopy=False)
    ):
        # Queued first: a process that dies here has queued it, and nobody queues it twice.
        parameters = dict(trial.system_attrs.get("fixed_params", {}))
        if "owner" in trial.user_attrs:  # otherwise some may be missing, and are drawn later
            parameters |= trial.params
        stored.enqueue_trial(parameters, user_attrs={"retries": retries, "retry_of": trial.number})
    for name, attribute in attributes.items():
        storage.set_trial_user_attr(trial_id, name, attribute)
    stored.tell(trial.number, state=TrialState.FAIL)


def tell(
    stored: optuna.Study,
    trial: Trial,
    outcome: str,
    values: Sequence[float],
    attributes: Mapping[str, Any],
) -> None:
    """End a trial with its outcome: completed, pruned, infeasible or failed.

    A trial that diverged, collapsed or timed out, or has no finite values, is infeasible: it has
    values worse than all finite ones and violates a constraint, so that every sampler learns to
    stay away from it. (As a failed one, samplers would ignore it and come back.)
    """
    for name, attribute in {**attributes, "outcome": outcome}.items():
        trial.set_user_attr(name, attribute)
    if outcome == "failed":
        stored.tell(trial, state=TrialState.FAIL)
        return
    is_feasible = outcome not in INFEASIBLE and all(map(math.isfinite, values))
    constrain(trial, stored.sampler, is_feasible=is_feasible)
    if outcome == "pruned":
        stored.tell(trial, state=TrialState.PRUNED)
    else:
        stored.tell(trial, values if is_feasible else [goal.worst for goal in goals_of(stored)])


def version_of(stored: optuna.Study) -> int:
    """The number of the code that a stored study is searched with now, counted from 1."""
    return int(stored.user_attrs.get("version", 1))


def goals_of(stored: optuna.Study) -> tuple[Goal, ...]:
    """What a stored study optimises, as it was declared.

    Raises:
        BadRequest: It says nothing about that.
    """
    try:
        objectives = stored.user_attrs["declaration"]["objectives"]
        return tuple(Goal(metric, direction) for metric, direction in objectives.items())
    except (KeyError, TypeError, AttributeError):
        raise BadRequest(
            f"study: {stored.study_name!r} in the storage was not created by the harness, or its "
            "declaration is damaged. Choose another --study-name."
        ) from None


def chosen(stored: optuna.Study, goals: tuple[Goal, ...] | None = None) -> list[FrozenTrial]:
    """The answer of a study: its best trial, or with several objectives its Pareto front.

    The front holds the completed trials that no other one beats in all objectives, the best by the
    first objective first; of trials with equal values the earliest.

    Args:
        goals: what the study optimises; read from the storage if not given.
    """
    goals, found = goals or goals_of(stored), completed(stored)
    if len(goals) == 1:
        return _best(found, goals[0])[:1]
    front: dict[tuple[float, ...], FrozenTrial] = {}
    for trial in found:
        if not any(dominates(other.values, trial.values, goals) for other in found):
            front.setdefault(tuple(trial.values), trial)
    return _best(list(front.values()), goals[0])


def _best(trials: Sequence[FrozenTrial], goal: Goal) -> list[FrozenTrial]:
    """Trials, the best by an objective first; the earlier of equals first."""
    return sorted(trials, key=lambda trial: (-goal.sign * trial.values[0], trial.number))


def completed(stored: optuna.Study) -> list[FrozenTrial]:
    """The trials that were trained to their end and have finite values."""
    trials = stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [
        trial
        for trial in trials
        if trial.user_attrs.get("outcome") == "completed" and all(map(math.isfinite, trial.values))
    ]


def have_defaults_timed_out(stored: optuna.Study) -> bool:
    """Whether the defaults, which are trial 0, took too long as a trial."""
    trials = stored.get_trials(deepcopy=False)
    return any(
        trial.user_attrs.get("outcome") == "timed out" and trial.params == trials[0].params
        for trial in trials
    )


def forgive_failures(stored: optuna.Study) -> None:
    """Forget earlier failures, so that a study that they stopped can continue."""
    stored.set_user_attr("forgiven", len(_ended(stored.get_trials(deepcopy=False))))


def failures_in_a_row(stored: optuna.Study, trials: Sequence[FrozenTrial]) -> str:
    """Why a study should stop whose last trials all failed; empty if it should not."""
    last = _ended(trials)[stored.user_attrs.get("forgiven", 0) :][-MOST_FAILURES_IN_A_ROW:]
    if [trial.user_attrs.get("outcome") for trial in last] != ["failed"] * MOST_FAILURES_IN_A_ROW:
        return ""
    reason = last[-1].user_attrs.get("reason", "unknown")
    return f"the last {MOST_FAILURES_IN_A_ROW} trials failed: {reason}"


def _ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count, in the order of their end."""
    counted = [
        trial
        for trial in trials
        if trial.state.is_finished() and trial.user_attrs.get("outcome") != "interrupted"
    ]
    return sorted(counted, key=lambda trial: str(trial.datetime_complete))


def _running(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.RUNNING]


def _is_orphan(trial: FrozenTrial) -> bool:
    # Without an owner, its process died between `ask` and the signature, both under the lock.
    owner = trial.user_attrs.get("owner")
    start = trial.datetime_start
    return owner is None or is_owner_dead(owner, start.timestamp() if start else 0.0)


def _is_here(text: str) -> bool:
    owner = Owner.from_text(text)
    return owner is not None and owner.is_here
