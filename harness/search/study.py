"""The declaration of a study: an experiment, a space, a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import log
from pathlib import Path
from typing import Annotated, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial

from harness.base import discovery, fields, project
from harness.base.errors import BadRequest
from harness.base.fields import Count
from harness.base.formatting import value_text
from harness.base.goals import Goal, usual_goal
from harness.search.conditional_space import drawn_space, range_in_words
from harness.search.objective import Objective, goal_of
from harness.training.experiment import Experiment

SamplerFactory = Callable[[int], optuna.samplers.BaseSampler]

Suggest = Callable[[Trial | FrozenTrial], Mapping[str, Any]]

NUM_DRAWS = 400
"""Random trials by which a conditional space is explored."""

NOT_SEARCHABLE = frozenset({"dataset", "seed", "validation_size", "split_seed", "stratify"})
"""Fields that decide what a trial's value means. Trials that differ in them are not comparable."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What to search, and for how long.

    Attributes:
        experiment: the values of all fields that are not searched, and the configuration of
            trial 0.
        space: a distribution for each searched field.
        suggest: for a conditional space, in place of `space`: takes a trial, returns field values.
        n_trials: the number of trials to finish.
        objective: what is optimised; by default the first metric of the experiment that has a
            direction, on the validation examples.
        objectives: several, in place of `objective`: the study looks for the trials that no other
            trial beats in all of them.
        sampler: takes a seed and returns an Optuna sampler, in place of the named ones. It is
            called for each trial, since a study may go on in another process.

    Raises:
        BadRequest: the experiment has no such field or refuses a bound, or the space leaves out
            the experiment's own values, which are trial 0.
    """

    experiment: Experiment
    space: Mapping[str, BaseDistribution] = dataclasses.field(default_factory=dict)
    suggest: Suggest | None = None
    n_trials: Annotated[int, Count] = 30
    objective: Objective | None = None
    objectives: Sequence[Objective] = ()
    sampler: SamplerFactory | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, Experiment):
            raise BadRequest("experiment: expected an experiment with its values, like Baseline().")
        fields.check(Study, "n_trials", self.n_trials)
        if bool(self.space) == bool(self.suggest):
            raise BadRequest("A study needs either a space or a function suggest(trial).")
        for name, distribution in self.space.items():
            for value in _bounds(distribution):
                self._check(name, value)
            _check_default(name, distribution, getattr(self.experiment, name))
        if self.objective and self.objectives:
            raise BadRequest("A study has either an objective or several objectives.")
        if any(not isinstance(entry, Objective) for entry in self._declared_objectives):
            raise BadRequest("objectives: expected Objective('validation/loss', 'minimize').")
        if len({goal.metric for goal in self.goals}) < len(self.goals):
            raise BadRequest("objectives: each metric may be named once.")
        if self.suggest:
            self.defaults()

    @property
    def _declared_objectives(self) -> tuple[Objective, ...]:
        return (self.objective,) if self.objective else tuple(self.objectives)

    @functools.cached_property
    def goals(self) -> tuple[Goal, ...]:
        """The objectives with their directions, at least one."""
        known = self.experiment.directions()
        found = tuple(goal_of(objective, known) for objective in self._declared_objectives)
        return found or (usual_goal(known),)

    def suggested(self, trial: Trial | FrozenTrial) -> Experiment:
        """The experiment that a trial asks for.

        Raises:
            BadRequest: `suggest` returned an unknown field, or a value that the field refuses.
        """
        values = self.suggest(trial) if self.suggest else trial.params
        if not isinstance(values, Mapping):
            raise BadRequest("suggest(trial) must return a dict of field values.")
        for name, value in values.items():
            self._check(name, value)
        return dataclasses.replace(self.experiment, **values)

    def defaults(self) -> dict[str, Any]:
        """The parameters of trial 0, which lead to the experiment's own values.

        If `suggest` uses names that are not fields, random draws find the values that lead there.
        The draws also show mistakes in `suggest` before anything starts.
        """
        if self.suggest is None:
            values = self.experiment.fields()
            return {name: values[name] for name in self.space}
        for trial, experiment in self._draws:
            if experiment == self.experiment:
                return trial.params
        raise BadRequest(
            "suggest(trial) never returns the experiment's own values, which are trial 0: "
            "use the names of fields."
        )

    @functools.cached_property
    def _draws(self) -> list[tuple[FrozenTrial, Experiment]]:
        """Random trials, with the experiments that `suggest` makes of them.

        Raises:
            BadRequest: `suggest` fails, or returns what no experiment can have.
        """
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        experiments = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the experiment's values may be out of range
            for draw in range(NUM_DRAWS):
                if draw % 4 == 0:  # the others are free and explore the space
                    drawn.enqueue_trial(self.experiment.fields())
                trial = drawn.ask()
                try:
                    experiments.append(self.suggested(trial))
                except BadRequest as error:
                    raise BadRequest(f"suggest(trial): {error}") from None
                except Exception as error:
                    raise BadRequest(
                        f"suggest(trial) fails: {type(error).__name__}: {error}"
                    ) from None
        return list(zip(drawn.get_trials(deepcopy=False), experiments, strict=True))

    def searches(self, name: str) -> bool:
        """Whether a field is searched; a conditional space is asked with random draws."""
        if self.suggest is None:
            return name in self.space
        own = self.experiment.fields()[name]
        return any(experiment.fields()[name] != own for _, experiment in self._draws)

    def declaration(self) -> dict[str, Any]:
        """What must stay the same when a stored study continues, in JSON's types."""
        space = describe_space(self)
        return {
            "experiment": self.experiment.name,
            "fields": self.experiment.fields(),
            "space": {"suggest(trial)": digest_of_source(self.suggest)} if self.suggest else space,
            "ranges": space,  # for readers; found by draws, it must not stay the same
            "metrics": self.experiment.directions(),
            "objectives": {goal.metric: goal.direction for goal in self.goals},
        }

    def sources(self) -> dict[str, str]:
        """Digests of the project's files that decide what a trial trains, by their paths.

        Those of the experiment and what it imports; with `suggest`, those of its file too.
        """
        found = type(self.experiment).sources()
        if self.suggest:
            with contextlib.suppress(OSError, TypeError):
                file = Path(inspect.getfile(inspect.unwrap(self.suggest))).resolve()
                if file.is_relative_to(project.root()):
                    found = found | discovery.sources_of(file)
        return found

    def _check(self, name: str, value: Any) -> None:
        fields.check(type(self.experiment), name, value)
        if name in NOT_SEARCHABLE:
            raise BadRequest(f"{name} cannot be searched: the trials would not be comparable.")


def digest_of_source(function: Callable[..., Any]) -> str:
    """The first letters of the SHA-256 of a function's source."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed in, or no plain function
        source = str(getattr(getattr(function, "__code__", None), "co_code", function))
    return f"digest {hashlib.sha256(source.encode()).hexdigest()[:8]}"


def load_study(name: str) -> Study:
    """The study of `studies/<name>.py`: the `Study` called `study`, or else the only one.

    Raises:
        BadRequest: the file does not exist, cannot be imported, or does not have one.
    """
    module = discovery.load_module("studies", name)
    if isinstance(named := getattr(module, "study", None), Study):
        return named
    found = [value for value in vars(module).values() if isinstance(value, Study)]
    if len(found) != 1:
        raise BadRequest(
            f"studies/{name}.py: expected a Study called `study`, or only one, found "
            f"{len(found) or 'none'}."
        )
    return found[0]


def describe_space(study: Study) -> dict[str, str]:
    """Each searched parameter with its range in words; in a conditional space also when.

    A parameter that is not a field only helps `suggest` to choose one.
    """
    if study.suggest is None:
        return {name: range_in_words(distribution) for name, distribution in study.space.items()}
    drawn = [trial for trial, _ in study._draws]
    return drawn_space(drawn) | {
        name: "what suggest(trial) makes of these"
        for name in study.experiment.fields()
        if study.searches(name) and not any(name in trial.params for trial in drawn)
    }


def edge_warnings(best: FrozenTrial) -> list[str]:
    """A sentence for each value of the best trial that lies at the edge of its range, or beyond.

    The edge is the outer twentieth: the true best may lie outside a range that was too small.
    """
    warnings = []
    for name, distribution in best.distributions.items():
        if isinstance(distribution, CategoricalDistribution) or distribution.single():
            continue
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        low, high, value = distribution.low, distribution.high, best.params[name]
        scale = log if distribution.log else float
        position = (scale(value) - scale(low)) / (scale(high) - scale(low))
        if not 0.05 < position < 0.95:
            bound, edge = (low, "lower") if position <= 0.05 else (high, "upper")
            place = "lies at" if 0 <= position <= 1 else "lies beyond"
            warnings.append(
                f"the best {name} ({value_text(value)}) {place} the {edge} bound of its range "
                f"({value_text(bound)}): a wider range may hold a better one"
            )
    return warnings


def _bounds(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return (distribution.low, distribution.high)
    raise BadRequest(f"A study cannot use the distribution {type(distribution).__name__}.")


def _check_default(name: str, distribution: BaseDistribution, default: Any) -> None:
    """Refuse a space that cannot represent trial 0. A value outside a range is fine."""
    if isinstance(distribution, CategoricalDistribution):
        possible = default in distribution.choices
    else:
        possible = not getattr(distribution, "log", False) or default > 0
    if not possible:
        raise BadRequest(
            f"{name}: the space must allow the experiment's own value {default!r}, which is "
            f"trial 0, but it is {range_in_words(distribution)}."
        )
