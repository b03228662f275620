"""The figures of a study, from its trials as plain rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from harness.base.formatting import capitalized, number_of
from harness.base.goals import Direction
from harness.base.statistics import summarize
from harness.base.trials import (
    INFEASIBLE,
    SearchedParameter,
    TrialRow,
    confirmed_metric,
    expected_best,
    metric_in_words,
    sampled_values,
)
from harness.figures.style import (
    BLUE,
    GREEN,
    GREY,
    MEDIUM,
    SEQUENTIAL_MAP,
    VERMILLION,
    cut_text,
    drawn,
    headed_figure,
    styled,
)

COMPLETED_MARK: dict[str, Any] = {"marker": "o", "ls": "", "color": BLUE, "label": "completed"}
PRUNED_MARK = COMPLETED_MARK | {"marker": "x", "color": GREY, "label": "pruned, last epoch"}
BEST_MARK = COMPLETED_MARK | {"marker": "*", "color": VERMILLION, "label": "best"}
BEST_MARK |= {"markersize": 15, "markeredgecolor": "white", "zorder": 4}

WITHOUT_VALUE = (*INFEASIBLE, "failed")


@dataclass(frozen=True)
class _ParameterAxis:
    """A searched parameter as an axis: numbers at their value, choices at 0, 1, 2."""

    parameter: SearchedParameter

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def choices(self) -> list[str]:
        return [str(choice) for choice in self.parameter.choices]

    def place(self, value: Any) -> float:
        """Where a value stands on the axis."""
        return float(self.choices.index(str(value)) if self.choices else value)

    def places(self, rows: Sequence[TrialRow]) -> NDArray[np.float64]:
        """Where the trials stand on the axis."""
        return np.array([self.place(row.params[self.name]) for row in rows], dtype=float)

    def scaled(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places as they appear: their logarithms on a logarithmic axis."""
        return np.log10(places) if self.parameter.log else places

    def put_on(self, axes: Axes, letter: str) -> None:
        """Turn the x or y axis into this parameter's."""
        axis = {"x": axes.xaxis, "y": axes.yaxis}[letter]
        axes.set(**{f"{letter}label": self.name})
        if self.parameter.log:
            axes.set(**{f"{letter}scale": "log"})
            low, high = axis.get_view_interval()
            ratio = high / low
            steps = (1.0, 2.0, 5.0) if ratio < 20 else (1.0, 3.0) if ratio < 300 else (1.0,)
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        elif self.choices:
            axis.set_major_locator(NullLocator())
            axis.set_ticks(range(len(self.choices)), self.choices)


@dataclass(frozen=True)
class _Trials:
    """What the figures show.

    Attributes:
        others: trials that are infeasible or failed.
        best: the best trial, or the Pareto front of several objectives.
        shared: the parameters that all completed trials have; in a conditional space not every one.
        objective: in words.
    """

    study_name: str
    completed: list[TrialRow]
    pruned: list[TrialRow]
    others: list[TrialRow]
    best: list[TrialRow]
    parameters: list[_ParameterAxis]
    shared: list[_ParameterAxis]
    defaults: Mapping[str, Any]
    objective: str
    direction: Direction

    @property
    def label(self) -> str:
        """The objective as an axis says it; a long name is cut."""
        return cut_text(self.objective, 2.5, 10)

    def figure(self, width: float, height: float, heading: str) -> Figure:
        """An empty figure that says of which study it is, and how many trials it is based on."""
        n = len(self.completed) + len(self.pruned) + len(self.others)
        basis = f"n = {number_of(n, 'trial')}, {len(self.completed)} completed"
        return headed_figure(width, height, heading, [self.study_name, basis], arranged=True)


def draw_study(
    study_name: str,
    rows: Sequence[TrialRow],
    parameters: Sequence[SearchedParameter],
    defaults: Mapping[str, Any],
    confirmed: Mapping[str, Mapping[str, Sequence[float]]],
    objectives: Mapping[str, Direction],
    chosen: Sequence[int],
    *,
    importances: Mapping[str, float],
) -> dict[str, Figure]:
    """The figures of a study that has a completed trial, by name.

    Args:
        defaults: the parameters of trial 0.
        confirmed: by configuration and metric, the value of each seed.
        objectives: the metrics that the study optimizes, with their directions.
        chosen: number of the best trial, or of those of the Pareto front.
        importances: the importance of each parameter; empty if there are too few trials.
    """
    if not chosen:
        raise ValueError("a study without a completed trial has no figures")
    completed = [row for row in rows if row.outcome == "completed" and row.values]
    axes = [_ParameterAxis(parameter) for parameter in parameters]
    (objective, direction), *others = objectives.items()
    trials = _Trials(
        study_name=study_name,
        completed=completed,
        pruned=[row for row in rows if row.outcome == "pruned" and row.value is not None],
        others=[row for row in rows if row.outcome in WITHOUT_VALUE],
        best=[row for row in completed if row.number in chosen],
        parameters=axes,
        shared=[axis for axis in axes if all(axis.name in row.params for row in completed)],
        defaults=defaults,
        objective=metric_in_words(objective),
        direction=direction,
    )
    drawings: dict[str, Callable[[], Figure]] = {}
    if others:
        for number, (metric, way) in enumerate(others, 1):
            second = _by_objective(trials, number, metric, way)
            name = metric.replace("/", "_")
            drawings[f"pareto_front_{name}"] = partial(_pareto_front, trials, second)
            drawings[f"slices_{name}"] = partial(_slices, second)
        drawings[f"slices_{objective.replace('/', '_')}"] = partial(_slices, trials)
    else:
        drawings |= _single(trials, rows)
    if importances:
        drawings["importances"] = partial(_importances, trials, importances)
    for number, metric in enumerate(map(confirmed_metric, objectives) if confirmed else ()):
        name = "confirmation" if not number else f"confirmation_{metric.replace('/', '_')}"
        values = {config: found[metric] for config, found in confirmed.items()}
        drawings[name] = partial(_confirmation, study_name, values, metric_in_words(metric))
    return drawn(drawings)


def _single(trials: _Trials, rows: Sequence[TrialRow]) -> dict[str, Callable[[], Figure]]:
    """The figures that only a study with one objective has."""
    drawings: dict[str, Callable[[], Figure]] = {
        "optimization_history": partial(_history, trials),
        "slices": partial(_slices, trials),
        "learning_curves": partial(_learning_curves, trials),
    }
    values = sampled_values(rows, trials.defaults, trials.direction)
    if len(values) > 1:
        drawings["expected_best"] = partial(_expected_best, trials, values)
    if len(trials.shared) == 2:
        drawings["contour"] = partial(_contour, trials)
    if len(trials.shared) > 2:
        drawings["parallel_coordinates"] = partial(_parallel_coordinates, trials)
    return drawings


def _by_objective(trials: _Trials, number: int, metric: str, direction: Direction) -> _Trials:
    """The trials with another of their objectives as the first."""

    def turned(rows: Sequence[TrialRow]) -> list[TrialRow]:
        return [dataclasses.replace(row, values=row.values[number:]) for row in rows]

    return dataclasses.replace(
        trials,
        completed=turned(trials.completed),
        pruned=turned(trials.pruned),
        best=turned(trials.best),
        objective=metric_in_words(metric),
        direction=direction,
    )


def _values(rows: Sequence[TrialRow]) -> NDArray[np.float64]:
    return np.array([row.value for row in rows], dtype=float)


@styled()
def _history(trials: _Trials) -> Figure:
    figure = trials.figure(MEDIUM, 4.5, f"{capitalized(trials.objective)} by trial")
    axes = figure.add_subplot()
    axes.set(xlabel="trial", ylabel=trials.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for rows, mark in ((trials.completed, COMPLETED_MARK), (trials.pruned, PRUNED_MARK)):
        axes.plot([row.number for row in rows], _values(rows), **mark)
    best = np.maximum if trials.direction == "maximize" else np.minimum
    numbers = [row.number for row in trials.completed]
    so_far = best.accumulate(_values(trials.completed))
    axes.step(numbers, so_far, where="post", color=VERMILLION, label="best so far", zorder=1)
    if trials.others:
        numbers = [row.number for row in trials.others]
        bottom: dict[str, Any] = {"marker": "v", "ls": "", "color": GREEN, "clip_on": False}
        found = {row.outcome for row in trials.others}
        label = " or ".join(outcome for outcome in WITHOUT_VALUE if outcome in found)
        bottom |= {"label": label, "transform": axes.get_xaxis_transform()}
        axes.plot(numbers, [0.0] * len(numbers), **bottom)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled()
def _pareto_front(first: _Trials, second: _Trials) -> Figure:
    """Two objectives: the trials, and a line through those that no other one beats."""
    figure = first.figure(MEDIUM, 4.8, f"{capitalized(first.objective)} and {second.objective}")
    axes = figure.add_subplot()
    axes.set(
        xlabel=f"{second.label} ({second.direction}d)",
        ylabel=f"{first.label} ({first.direction}d)",
    )
    values = _values(second.completed)
    if values.min() > 0 and values.max() > 20 * values.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.plot(values, _values(first.completed), **COMPLETED_MARK)
    front = sorted(zip(_values(second.best), _values(first.best), strict=True))
    axes.plot(*zip(*front, strict=True), color=VERMILLION, lw=1, zorder=1)
    axes.plot(*zip(*front, strict=True), **BEST_MARK | {"label": "front"})
    for x, y, row in zip(_values(second.best), _values(first.best), first.best, strict=True):
        axes.annotate(
            str(row.number), (x, y), xytext=(7, -11), textcoords="offset points", fontsize=9
        )
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled()
def _slices(trials: _Trials) -> Figure:
    """The trials by each parameter, one panel for each."""
    count = len(trials.parameters)
    columns = 2 if count in (2, 4) else min(count, 3)
    lines = -(-count // columns)
    heading = f"{capitalized(trials.objective)} by searched value"
    figure = trials.figure(max(MEDIUM, 3.1 * columns), 1.7 + 2.8 * lines, heading)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes, parameter in zip(grid.flat, trials.parameters, strict=False):
        for every, mark in (
            (trials.pruned, PRUNED_MARK),
            (trials.completed, COMPLETED_MARK),
            (trials.best, BEST_MARK),
        ):
            rows = [row for row in every if parameter.name in row.params]
            axes.plot(parameter.places(rows), _values(rows), **mark)
        if parameter.name in trials.defaults:
            default = parameter.place(trials.defaults[parameter.name])
            axes.axvline(default, color=GREEN, ls="--", label="default")
        parameter.put_on(axes, "x")
    for axes in grid[:, 0]:
        axes.set_ylabel(trials.label)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@styled()
def _learning_curves(trials: _Trials) -> Figure:
    figure = trials.figure(MEDIUM, 4.5, f"{capitalized(trials.objective)} by epoch")
    axes = figure.add_subplot()
    axes.set(xlabel="epoch", ylabel=trials.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    styles: list[tuple[Sequence[TrialRow], dict[str, Any]]] = [
        (trials.pruned, {"color": GREY, "ls": ":", "marker": "x", "label": "pruned"}),
        (trials.completed, {"color": BLUE, "alpha": 0.45, "marker": ".", "label": "completed"}),
        (trials.best, {"color": VERMILLION, "lw": 2.5, "marker": "o", "label": "best"}),
    ]
    for rows, style in styles:
        for row in rows:
            epochs = sorted(row.intermediate_values.items())
            axes.plot([epoch for epoch, _ in epochs], [value for _, value in epochs], **style)
            style["label"] = None  # the legend shows one line of each kind
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled()
def _expected_best(trials: _Trials, values: Sequence[float]) -> Figure:
    """What fewer trials would have found: the expected best with one standard deviation."""
    figure = trials.figure(MEDIUM, 4.5, f"Expected best {trials.objective}")
    axes = figure.add_subplot()
    axes.set(xlabel="trials drawn", ylabel=trials.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mean, std = np.array(expected_best(values, trials.direction)).T
    n = np.arange(1, len(values) + 1)
    low, high = min(values), max(values)
    # Nothing drawn lies outside of this range.
    band = (np.maximum(mean - std, low), np.minimum(mean + std, high))
    axes.fill_between(n, *band, color=BLUE, alpha=0.2, lw=0, label="± 1 standard deviation")
    axes.plot(n, mean, color=BLUE, lw=2, label="expected best of n independent draws")
    best = high if trials.direction == "maximize" else low
    axes.axhline(best, color=VERMILLION, ls="--", lw=1, label="best drawn")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled()
def _contour(trials: _Trials) -> Figure:
    """Two parameters: the trials, coloured by their value, on a surface fitted through them."""
    first, second = trials.shared
    heading = f"{capitalized(trials.objective)} by {first.name} and {second.name}"
    figure = trials.figure(MEDIUM, 5.3, heading)
    axes = figure.add_subplot()
    x, y = first.places(trials.completed), second.places(trials.completed)
    values = _values(trials.completed)
    if not (first.choices or second.choices):
        try:
            triangles = Triangulation(first.scaled(x), second.scaled(y)).triangles
            surface = Triangulation(x, y, triangles)
            axes.tricontourf(surface, values, 12, cmap=SEQUENTIAL_MAP, alpha=0.6)
        except (RuntimeError, ValueError):
            pass  # too few trials, or all of them on one line
    options: dict[str, Any] = {"edgecolors": "black", "s": 45, "zorder": 3}
    dots = axes.scatter(x, y, c=values, cmap=SEQUENTIAL_MAP, **options)
    axes.plot(first.places(trials.best), second.places(trials.best), **BEST_MARK)
    first.put_on(axes, "x")
    second.put_on(axes, "y")
    axes.use_sticky_edges = False
    axes.margins(0.06)
    axes.autoscale_view()
    figure.colorbar(dots, label=trials.label)
    figure.legend(loc="outside lower center")
    return figure


@styled()
def _parallel_coordinates(trials: _Trials) -> Figure:
    """More than two parameters: a line for each completed trial through all of its values."""
    parameters = trials.shared
    is_whole = len(parameters) == len(trials.parameters)
    heading = f"Searched values {'of the completed trials' if is_whole else 'that all trials have'}"
    figure = trials.figure(max(MEDIUM, 1.7 * len(parameters) + 1.2), 4.9, heading)
    axes = figure.add_subplot()
    heights = []
    for column, parameter in enumerate(parameters):
        places = parameter.scaled(parameter.places(trials.completed))
        low, high = places.min(), places.max()
        if parameter.choices:
            low, high = 0, len(parameter.choices) - 1
            ticks = list(zip(range(len(parameter.choices)), parameter.choices, strict=True))
        else:
            ends = sorted({low, (low + high) / 2, high})
            log = parameter.parameter.log
            ticks = [(end, f"{10**end if log else end:.3g}") for end in ends]
        span = (high - low) or 1
        heights.append((places - low) / span)
        axes.axvline(column, color=GREY, lw=1)
        for tick, words in ticks:
            beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
            box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
            place = (column, (tick - low) / span)
            axes.annotate(words, place, **beside, va="center", fontsize=9, bbox=box, zorder=5)
    values = _values(trials.completed)
    colours = matplotlib.colormaps[SEQUENTIAL_MAP]
    norm = Normalize(values.min(), values.max())
    # The better a trial, the further in front.
    for index in np.argsort(values if trials.direction == "maximize" else -values):
        is_best = trials.completed[index] in trials.best
        line = [height[index] for height in heights]
        axes.plot(
            line,
            color=VERMILLION if is_best else colours(norm(values[index])),
            lw=2.5 if is_best else 1.2,
            label="best" if is_best else None,
        )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.1, len(parameters) - 0.6)
    axes.set_xticks(range(len(parameters)), [parameter.name for parameter in parameters])
    axes.yaxis.set_major_locator(NullLocator())
    figure.colorbar(ScalarMappable(norm, SEQUENTIAL_MAP), ax=axes, label=trials.label)
    figure.legend(loc="outside lower center")
    return figure


@styled()
def _importances(trials: _Trials, importances: Mapping[str, float]) -> Figure:
    height = 1.7 + 0.4 * len(importances)
    figure = trials.figure(MEDIUM, height, "Importance by PED-ANOVA")
    axes = figure.add_subplot()
    names = sorted(importances, key=lambda name: importances[name])
    bars = axes.barh(names, [importances[name] for name in names], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel(f"relative importance for the {cut_text(trials.objective, 3, 10)}")
    axes.set_xlim(0, 1.1 * max(importances.values()))
    axes.grid(False)
    return figure


@styled()
def _confirmation(study_name: str, confirmed: Mapping[str, Sequence[float]], metric: str) -> Figure:
    n = len(next(iter(confirmed.values())))
    lines = [study_name, f"n = {number_of(n, 'seed')}, trained on all training examples"]
    height = 2.0 + 0.7 * len(confirmed)
    figure = headed_figure(MEDIUM, height, "Confirmation", lines, arranged=True)
    axes = figure.add_subplot()
    names = list(confirmed)
    for row, values in enumerate(confirmed.values()):
        colour, marker = (BLUE, "s") if names[row] == "defaults" else (VERMILLION, "o")
        axes.plot(values, [row - 0.12] * n, marker, color=colour, alpha=0.6)
        if n > 1:
            found = summarize(values)
            half = (found.high - found.low) / 2
            axes.errorbar(found.mean, row + 0.12, xerr=half, fmt="D", color=colour, capsize=5)
    axes.set_yticks(range(len(confirmed)), names)
    axes.set_ylim(len(confirmed) - 0.5, -0.5)
    what = "each seed" if n == 1 else "each seed, and their mean with its 95% interval"
    axes.set_xlabel(f"{cut_text(metric, 2, 10)}: {what}")
    axes.grid(False, axis="y")
    return figure
