"""What a stored study has found, as plain data: its trials, its parameters and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from harness.base.formatting import csv_text
from harness.base.trials import SearchedParameter, TrialRow
from harness.search import trial_queue
from harness.search.importance import importances
from harness.search.objective import OBJECTIVE
from harness.search.storage import StoredStudy
from harness.search.study import edge_warnings


def trial_rows(stored: StoredStudy) -> list[TrialRow]:
    """Every trial, by number. A later row repeats an interrupted trial."""
    return [_row(trial) for trial in stored.get_trials(deepcopy=False)]


def searched_parameters(stored: StoredStudy) -> list[SearchedParameter]:
    """The parameters of all trials, in the order in which the trials asked for them."""
    distributions: dict[str, BaseDistribution] = {}
    for trial in stored.get_trials(deepcopy=False):
        distributions.update(trial.distributions)
    return [_parameter(name, distribution) for name, distribution in distributions.items()]


def trials_csv(rows: Sequence[TrialRow]) -> str:
    """The trials as CSV, with one column for each parameter."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    before = ("number", "outcome", "value")
    after = ("num_epochs", "seconds", "training_seconds", "reason", "retry_of", "run_id")
    cells = (
        [
            *(getattr(row, name) for name in before),
            *(row.params.get(name) for name in names),
            *(getattr(row, name) for name in after),
        ]
        for row in rows
    )
    return csv_text([*before, *names, *after], cells)


def study_summary(stored: StoredStudy) -> dict[str, Any]:
    """What the storage alone knows: declaration, counts by outcome, best trial and warnings.

    `best` is None if no trial has completed; `defaults` are the parameters of trial 0.
    """
    trials, best = stored.get_trials(deepcopy=False), trial_queue.best(stored)
    declaration = stored.user_attrs["declaration"]
    return {
        "study": stored.study_name,
        "objective": OBJECTIVE.metric,
        "direction": OBJECTIVE.direction,
        "declaration": {name: declaration[name] for name in ("experiment", "fields", "space")},
        "defaults": trials[0].params if trials else {},
        **declaration["search"],
        "counts": vars(trial_queue.count(trials)),
        "best": best and {"trial": best.number, "parameters": best.params, "value": best.value},
        "importances": importances(stored),
        "warnings": edge_warnings(best) if best else [],
    }


def _row(trial: FrozenTrial) -> TrialRow:
    known = trial.user_attrs
    return TrialRow(
        number=trial.number,
        outcome=known.get("outcome", trial.state.name.lower()),
        value=trial.value,
        params=trial.params,
        intermediate_values=trial.intermediate_values,
        seconds=trial.duration.total_seconds() if trial.duration else None,
        training_seconds=known.get("training_seconds"),
        reason=known.get("reason"),
        retry_of=known.get("retry_of"),
        run_id=known.get("run_id"),
        owner=known.get("owner"),
        worker=known.get("worker"),
    )


def _parameter(name: str, distribution: BaseDistribution) -> SearchedParameter:
    if isinstance(distribution, CategoricalDistribution):
        return SearchedParameter(name, choices=tuple(distribution.choices))
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return SearchedParameter(
        name,
        low=distribution.low,
        high=distribution.high,
        log=distribution.log,
        step=distribution.step,
    )
