"""What a stored study has found, as plain data: its trials, its parameters and its summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from harness.base.formatting import csv_text
from harness.base.trials import SearchedParameter, TrialRow
from harness.search import trial_queue
from harness.search.importance import importances
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
    most = max((len(row.values) for row in rows), default=1)
    before = ("number", "outcome")
    values = ["value"] if most < 2 else [f"value {number}" for number in range(1, most + 1)]
    after = ("num_epochs", "seconds", "training_seconds", "reason", "retry_of", "version", "run_id")
    cells = (
        [
            *(getattr(row, name) for name in before),
            *(row.values[n] if n < len(row.values) else None for n in range(len(values))),
            *(row.params.get(name) for name in names),
            *(getattr(row, name) for name in after),
        ]
        for row in rows
    )
    return csv_text([*before, *values, *names, *after], cells)


def study_summary(stored: StoredStudy) -> dict[str, Any]:
    """What the storage alone knows: declaration, counts by outcome, answer and warnings.

    `chosen` has the best trial, or the Pareto front, and is empty if no trial has completed;
    `defaults` are the parameters of trial 0.
    """
    goals = trial_queue.goals_of(stored)
    trials, chosen = stored.get_trials(deepcopy=False), trial_queue.chosen(stored, goals)
    declaration = stored.user_attrs["declaration"]
    return {
        "study": stored.study_name,
        "objectives": [vars(goal) for goal in goals],
        "declaration": {
            **{name: declaration[name] for name in ("experiment", "fields")},
            "space": declaration.get("ranges", declaration["space"]),
        },
        "defaults": trials[0].params if trials else {},
        **declaration["search"],
        "trial_timeout": stored.user_attrs.get("trial_timeout"),
        "counts": vars(trial_queue.count(trials)),
        "chosen": [
            {"trial": trial.number, "parameters": trial.params, "values": trial.values}
            for trial in chosen
        ],
        "importances": importances(stored),
        "warnings": [*dict.fromkeys(warning for best in chosen for warning in edge_warnings(best))],
    }


ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("outcome", "reason", "run_id", "owner"), str),
    **dict.fromkeys(("retry_of", "version", "num_epochs"), int),
    "training_seconds": (int, float),
}
"""The types of what the harness keeps with a trial."""


def _row(trial: FrozenTrial) -> TrialRow:
    # What another program wrote under these names is left out.
    known: dict[str, Any] = {
        name: value
        for name, value in trial.user_attrs.items()
        if isinstance(value, ATTRIBUTES.get(name, object))
    }
    values = tuple(trial.values or ())
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        values = (trial.intermediate_values[max(trial.intermediate_values)],)
    return TrialRow(
        number=trial.number,
        outcome=known.get("outcome", trial.state.name.lower()),
        # Those of an infeasible trial only tell the sampler to stay away.
        values=values if all(map(math.isfinite, values)) else (),
        params=trial.params,
        intermediate_values=trial.intermediate_values,
        seconds=_seconds(trial),
        training_seconds=known.get("training_seconds"),
        reason=known.get("reason"),
        retry_of=known.get("retry_of"),
        version=known.get("version", 1),
        run_id=known.get("run_id"),
        owner=known.get("owner"),
        worker=known.get("worker"),
        num_epochs=known.get("num_epochs", max(trial.intermediate_values, default=0)),
    )


def _seconds(trial: FrozenTrial) -> float | None:
    """How long a trial took; unknown if it was interrupted, since others ended it later."""
    if trial.duration is None or trial.user_attrs.get("outcome") == "interrupted":
        return None
    return float(trial.user_attrs.get("seconds", trial.duration.total_seconds()))


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
