"""A study as a declaration: an experiment, a space, a budget."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from math import log
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, Trial

from harness import fields, project
from harness.errors import BadRequest
from harness.training.experiment import Experiment

Suggest = Callable[[Trial | FrozenTrial], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What to search, and how long.

    Attributes:
        experiment: its fields are the values of everything that is not searched, and the
            configuration of trial 0.
        space: a distribution for each searched field.
        suggest: for a conditional space, instead: takes a trial and returns field values.
        n_trials: how many trials to finish.

    Raises:
        BadRequest: a key is no field of the experiment, or a bound would be refused by it.
    """

    experiment: Experiment
    space: Mapping[str, BaseDistribution] = dataclasses.field(default_factory=dict)
    suggest: Suggest | None = None
    n_trials: int = 30

    def __post_init__(self) -> None:
        if bool(self.space) == bool(self.suggest):
            raise BadRequest("A study needs a space, or else a function suggest(trial).")
        for name, distribution in self.space.items():
            if name in NOT_SEARCHABLE:
                raise BadRequest(f"{name} cannot be searched: its trials would not compare.")
            for value in _bounds(distribution):
                fields.check(type(self.experiment), name, value)

    def suggested(self, trial: Trial | FrozenTrial) -> Experiment:
        """The experiment that a trial asks for.

        Raises:
            BadRequest: `suggest` returned what is no field, or what a field does not allow.
        """
        values = self.suggest(trial) if self.suggest else trial.params
        for name, value in values.items():
            fields.check(type(self.experiment), name, value)
        return dataclasses.replace(self.experiment, **values)

    def declaration(self) -> dict[str, Any]:
        """What must stay the same while a stored study goes on, as JSON can hold it."""
        fixed = {k: v for k, v in self.experiment.fields().items() if k not in self.space}
        space = {k: json.loads(distribution_to_json(v)) for k, v in self.space.items()}
        return {
            "experiment": self.experiment.name,
            "fixed": fixed,
            "space": space if self.space else "suggest(trial)",
        }


def load_study(name: str) -> Study:
    """The study of `studies/<name>.py`: its one module-level `Study`.

    Raises:
        BadRequest: there is no such file, it cannot be imported, or it has none or several.
    """
    module = project.load("studies", name)
    found = [value for value in vars(module).values() if isinstance(value, Study)]
    if len(found) != 1:
        raise BadRequest(f"studies/{name}.py: expected one Study, found {len(found)}.")
    return found[0]


def describe_space(study: Study) -> dict[str, str]:
    """Each searched field with its range in words."""
    return {name: _words(distribution) for name, distribution in study.space.items()}


NOT_SEARCHABLE = frozenset({"dataset", "validation_size", "split_seed", "num_epochs"})
"""Fields that decide what a trial's value means: trials that differ in them do not compare."""


def edge_warnings(study: Study, best: Mapping[str, Any]) -> list[str]:
    """A sentence for each best value in the outer twentieth of its range.

    There the best may well lie outside: the range was too small.
    """
    warnings = []
    for name, distribution in study.space.items():
        if name not in best or not isinstance(distribution, (FloatDistribution, IntDistribution)):
            continue
        low, high, value = float(distribution.low), float(distribution.high), float(best[name])
        position = _position(distribution, low, high, value)
        if position <= 0.05 or position >= 0.95:
            bound, edge = (low, "lower") if position <= 0.05 else (high, "upper")
            warnings.append(
                f"the best {name} ({value:g}) lies at the {edge} bound of its range ({bound:g}): "
                "a wider range may hold a better one"
            )
    return warnings


def _position(
    distribution: FloatDistribution | IntDistribution, low: float, high: float, value: float
) -> float:
    if low == high:
        return 0.5
    if distribution.log:
        return (log(value) - log(low)) / (log(high) - log(low))
    return (value - low) / (high - low)


def _bounds(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return (distribution.low, distribution.high)
    raise BadRequest(f"{type(distribution).__name__} is not a distribution that a study can use.")


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    scale = ", logarithmic" if distribution.log else ""
    step = f", step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{scale}{step}"
