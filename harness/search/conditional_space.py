"""A space in words: its ranges, and for a conditional one, found by draws, when each is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

from harness.base.formatting import value_text
from harness.base.trials import CONDITION

SOMETIMES = "suggest(trial) asks for it"
"""The condition of a parameter, if none was found in the draws."""


def range_in_words(distribution: BaseDistribution) -> str:
    """The values that a distribution allows: `0.001 to 1.0, logarithmic`."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(repr, distribution.choices))
    known: Any = distribution
    scale = ", logarithmic" if known.log else ""
    step = f", step {known.step}" if known.step not in (None, 1) else ""
    return f"{known.low} to {known.high}{scale}{step}"


def drawn_space(drawn: Sequence[FrozenTrial]) -> dict[str, str]:
    """Each parameter that a draw has, with its range and its condition in words."""
    found = {}
    for name in dict.fromkeys(name for trial in drawn for name in trial.params):
        having = [trial for trial in drawn if name in trial.params]
        lacking = [trial.params for trial in drawn if name not in trial.params]
        words = _drawn_range([trial.distributions[name] for trial in having])
        condition = _condition(name, having, lacking)
        found[name] = f"{words}{CONDITION}{condition}" if condition else words
    return found


def _drawn_range(distributions: Sequence[BaseDistribution]) -> str:
    """The range that all draws share, or else the widest, if the trial decides about it."""
    words = list(dict.fromkeys(map(range_in_words, distributions)))
    if len(words) == 1:
        return words[0]
    ranges: list[Any] = list(distributions)
    low, high = min(known.low for known in ranges), max(known.high for known in ranges)
    scale = ", logarithmic" if ranges[0].log else ""
    return f"{low} to {high}{scale}, a part of it that depends on the trial"


def _condition(
    name: str, having: Sequence[FrozenTrial], lacking: Sequence[Mapping[str, Any]]
) -> str:
    """When a parameter is asked for, by the parameters before it; "" if always."""
    before = [list(trial.params)[: list(trial.params).index(name)] for trial in having]
    candidates = [other for other in before[0] if all(other in names for names in before)]
    conditions = []
    while lacking:
        excluding = {}
        for other in candidates:
            distribution = having[0].distributions[other]
            values = [trial.params[other] for trial in having]
            words, left = _rule(other, distribution, values, lacking)
            excluding[words] = left
        best = min(excluding, key=lambda words: len(excluding[words]), default="")
        if not best or len(excluding[best]) == len(lacking):
            return SOMETIMES
        conditions.append(best)
        lacking = excluding[best]
    return " and ".join(conditions)


def _rule(
    other: str,
    distribution: BaseDistribution,
    values: Sequence[Any],
    lacking: Sequence[Mapping[str, Any]],
) -> tuple[str, list[Mapping[str, Any]]]:
    """What `other` is wherever a parameter is asked for, and the draws without it that agree."""
    if isinstance(distribution, CategoricalDistribution):
        allowed = [choice for choice in distribution.choices if choice in values]
        words = f"{other} is {' or '.join(map(repr, allowed))}"
        return words, [params for params in lacking if params.get(other) in allowed]
    low, high = min(values), max(values)
    refused = [params[other] for params in lacking if other in params]
    below = max((value for value in refused if value < low), default=None)
    above = min((value for value in refused if value > high), default=None)
    step = distribution.step if isinstance(distribution, IntDistribution) else 0
    limits = []
    if below is not None:
        is_next = low - below == step
        limits.append(f"at least {low}" if is_next else f"above about {value_text(below)}")
    if above is not None:
        is_next = above - high == step
        limits.append(f"at most {high}" if is_next else f"below about {value_text(above)}")
    words = f"{other} is {' and '.join(limits)}"
    return words, [params for params in lacking if low <= params.get(other, low - 1) <= high]
