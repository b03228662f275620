"""The trials of a study as plain data, for tables, figures and reports.

Nothing here knows where trials are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.base.goals import Direction
from harness.base.statistics import expected_maximum

CONDITION = "; if "
"""Between the range of a parameter and its condition, in the words of a conditional space."""


INFEASIBLE = ("diverged", "collapsed", "timed out")
"""Outcomes of trials without a value, near which a sampler should draw no others."""


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Attributes:
        outcome: `completed`, `pruned`, `diverged`, `collapsed`, `timed out`, `failed`,
            `interrupted`, `running` or `waiting`.
        values: the objectives after the last epoch; a trial that diverged, collapsed, timed out or
            failed has none.
        params: the searched values; in a conditional space not every trial has all of them.
        intermediate_values: the objective by epoch, counted from 1; empty if there are several.
        seconds: from the trial's start to its end.
        training_seconds: the part of `seconds` in which epochs were trained and evaluated.
        reason: what went wrong, or None.
        retry_of: number of the interrupted trial that this one repeats.
        run_id: the trial's run in the store.
        owner: the process that claimed it.
        worker: number of that process's worker that trained it.
        num_epochs: how many epochs were trained.
        version: number of the code that trained it; see `--accept-changed-code`.
    """

    number: int
    outcome: str
    values: tuple[float, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    seconds: float | None = None
    training_seconds: float | None = None
    reason: str | None = None
    retry_of: int | None = None
    run_id: str | None = None
    owner: str | None = None
    worker: int | None = None
    num_epochs: int = 0
    version: int = 1

    @property
    def value(self) -> float | None:
        """The first objective; None if there is none."""
        return self.values[0] if self.values else None


@dataclass(frozen=True)
class SearchedParameter:
    """A searched parameter and what it may be: a range, or one of several choices.

    Attributes:
        log: whether the range is searched on a logarithmic scale.
        step: the distance between possible values, or None if every value is possible.
        choices: the values of a categorical parameter; empty for a range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()


def sampled_values(
    rows: Sequence[TrialRow], defaults: Mapping[str, Any], direction: Direction = "maximize"
) -> list[float]:
    """The value of every finished trial that the sampler chose, in order of their numbers.

    A pruned trial counts with the value of its last epoch, one that diverged, collapsed or
    timed out with the worst of all others. Failed trials have no value, and the sampler did not
    choose the defaults.
    """
    drawn = [row for row in rows if row.params != defaults]
    known = [row.value for row in drawn if row.value is not None]
    if not known:
        return []
    worst = min(known) if direction == "maximize" else max(known)
    return [
        worst if row.value is None else row.value
        for row in drawn
        if row.outcome in INFEASIBLE
        or (row.outcome in ("completed", "pruned") and row.value is not None)
    ]


def expected_best(
    values: Sequence[float], direction: Direction = "maximize"
) -> list[tuple[float, float]]:
    """Mean and standard deviation of the best of n draws from the values, for each n from 1."""
    sign = 1 if direction == "maximize" else -1
    found = expected_maximum([sign * value for value in values])
    return [(sign * mean, std) for mean, std in found]


def metric_in_words(metric: str) -> str:
    """The name of a metric as a sentence has it.

    >>> metric_in_words("validation/accuracy")
    'validation accuracy'
    """
    return metric.replace("/", " ")


def confirmed_metric(objective: str) -> str:
    """The metric that confirms what was selected by an objective: the same, on the test set.

    >>> confirmed_metric("validation/accuracy")
    'test/accuracy'
    """
    part, slash, name = objective.partition("/")
    return f"test/{name}" if slash and part == "validation" else objective
