"""Pictures of a study, drawn from its trials; nothing here touches pyplot and its global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from harness.base.formatting import number_of
from harness.base.statistics import expected_maximum, summarize
from harness.search import trial_queue
from harness.search.importance import importances
from harness.search.storage import StoredStudy

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
"""From Okabe and Ito's palette, which colour-blind readers tell apart; each has its own marker."""

COLOURS = "cividis"
"""The map of accuracies: as readable without colour vision."""

COMPLETED: dict[str, Any] = {"marker": "o", "ls": "", "color": BLUE, "label": "completed"}
PRUNED: dict[str, Any] = {"marker": "x", "ls": "", "color": GREY, "label": "pruned, last epoch"}
BEST: dict[str, Any] = {
    **{"marker": "*", "ls": "", "color": ORANGE, "label": "best"},
    **{"markersize": 15, "markeredgecolor": "white", "zorder": 4},
}

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "figure.titlesize": 11,
    "grid.color": "#E3E3E3",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "harness",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Parameter:
    """A searched parameter as an axis: numbers where they are, choices at 0, 1, 2.

    Attributes:
        choices: of a categorical parameter, in words; none of a range.
    """

    name: str
    log: bool
    choices: tuple[str, ...]
    default: Any

    def places(self, trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
        """Where the trials stand on the axis."""
        return np.array([self.place(trial.params[self.name]) for trial in trials], dtype=float)

    def place(self, value: Any) -> float:
        """Where a value stands on the axis."""
        return float(self.choices.index(str(value)) if self.choices else value)

    def scale(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places as the eye sees them: logarithms on a logarithmic axis."""
        return np.log10(places) if self.log else places

    def put_on(self, axes: Axes, letter: str) -> None:
        """Make the x or y axis this parameter's."""
        axis = {"x": axes.xaxis, "y": axes.yaxis}[letter]
        axes.set(**{f"{letter}label": self.name})
        if self.log:
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
class Trials:
    """What the figures show.

    Attributes:
        parameters: in the order in which they were asked for.
        completed, pruned, others: trials that ended so; the others diverged or failed.
    """

    study_name: str
    parameters: tuple[Parameter, ...]
    completed: tuple[FrozenTrial, ...]
    pruned: tuple[FrozenTrial, ...]
    others: tuple[FrozenTrial, ...]
    best: FrozenTrial

    @property
    def shared(self) -> tuple[Parameter, ...]:
        """The parameters that all completed trials have, in a conditional space."""
        return tuple(p for p in self.parameters if all(p.name in t.params for t in self.completed))

    def title(self, what: str) -> str:
        """What a figure shows, of which study, from how many trials."""
        n = len(self.completed) + len(self.pruned) + len(self.others)
        return f"{self.study_name}: {what}\nn = {n} trials, {len(self.completed)} completed"


def draw(
    stored: StoredStudy,
    defaults: Mapping[str, Any],
    confirmed: Mapping[str, Sequence[float]],
) -> dict[str, Figure]:
    """The figures of a study with a completed trial, by name.

    Args:
        defaults: the parameters of trial 0.
        confirmed: for each confirmed configuration its test accuracies, seed by seed.
    """
    trials = _trials(stored, defaults)
    drawn = {
        "optimization_history": _history(trials),
        "slices": _slices(trials),
        "learning_curves": _learning_curves(trials),
    }
    if len(values := drawn_values(stored, defaults)) > 1:
        drawn["expected_best"] = _expected_best(trials, values)
    if len(trials.shared) == 2:
        drawn["contour"] = _contour(trials)
    if len(trials.shared) > 2:
        drawn["parallel_coordinates"] = _parallel_coordinates(trials)
    if importance := importances(stored):
        drawn["importances"] = _importances(trials, importance)
    if confirmed:
        drawn["confirmation"] = _confirmation(stored.study_name, confirmed)
    return drawn


def drawn_values(stored: StoredStudy, defaults: Mapping[str, Any]) -> list[float]:
    """Validation accuracy of every finished trial that the sampler drew, in order.

    A pruned trial has that of its last epoch, a diverged one 0; a failed one has none. The
    defaults were not drawn.
    """
    return [
        trial.value
        for trial in stored.get_trials(deepcopy=False)
        if trial.user_attrs.get("outcome") in ("completed", "pruned", "diverged")
        and trial.value is not None
        and trial.params != defaults
    ]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, format="png", dpi=130, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, letters as outlines; the same figure gives the same bytes."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def _trials(stored: StoredStudy, defaults: Mapping[str, Any]) -> Trials:
    finished = stored.get_trials(deepcopy=False)
    by_outcome: dict[str, list[FrozenTrial]] = {}
    distributions = {}
    for trial in finished:
        by_outcome.setdefault(trial.user_attrs.get("outcome", ""), []).append(trial)
        distributions.update(trial.distributions)
    best = trial_queue.best(stored)
    assert best is not None
    return Trials(
        stored.study_name,
        tuple(
            Parameter(
                name,
                getattr(distribution, "log", False),
                tuple(map(str, distribution.choices))
                if isinstance(distribution, CategoricalDistribution)
                else (),
                defaults.get(name),
            )
            for name, distribution in distributions.items()
        ),
        tuple(by_outcome.get("completed", ())),
        tuple(trial for trial in by_outcome.get("pruned", ()) if trial.value is not None),
        tuple(by_outcome.get("diverged", []) + by_outcome.get("failed", [])),
        best,
    )


def _styled(figure: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in one style, whatever the user's own settings are."""

    def drawn(*arguments: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return figure(*arguments)

    return drawn


def _values(trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
    return np.array([trial.value for trial in trials], dtype=float)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


@_styled
def _history(trials: Trials) -> Figure:
    figure = _figure(6.4, 4.2, trials.title("validation accuracy by trial"))
    axes = figure.add_subplot()
    axes.set(xlabel="trial", ylabel="validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for some, mark in ((trials.completed, COMPLETED), (trials.pruned, PRUNED)):
        axes.plot([trial.number for trial in some], _values(some), **mark)
    numbers = [trial.number for trial in trials.completed]
    so_far = np.maximum.accumulate(_values(trials.completed))
    axes.step(numbers, so_far, where="post", color=ORANGE, label="best so far", zorder=1)
    if trials.others:
        numbers = [trial.number for trial in trials.others]
        bottom: dict[str, Any] = {"marker": "v", "ls": "", "color": GREEN, "clip_on": False}
        bottom |= {"label": "diverged or failed", "transform": axes.get_xaxis_transform()}
        axes.plot(numbers, [0.0] * len(numbers), **bottom)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@_styled
def _slices(trials: Trials) -> Figure:
    columns = 2 if len(trials.parameters) in (2, 4) else min(len(trials.parameters), 3)
    rows = -(-len(trials.parameters) // columns)
    title = trials.title("validation accuracy by searched value")
    figure = _figure(max(6.4, 3.1 * columns), 1.4 + 2.8 * rows, title)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(trials.parameters) :]:
        axes.remove()
    for axes, parameter in zip(grid.flat, trials.parameters, strict=False):
        for every, mark in (
            (trials.pruned, PRUNED),
            (trials.completed, COMPLETED),
            ((trials.best,), BEST),
        ):
            some = [trial for trial in every if parameter.name in trial.params]
            axes.plot(parameter.places(some), _values(some), **mark)
        if parameter.default is not None:
            default = parameter.place(parameter.default)
            axes.axvline(default, color=GREEN, ls="--", label="the experiment's own value")
        parameter.put_on(axes, "x")
    for axes in grid[:, 0]:
        axes.set_ylabel("validation accuracy")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, 2 * columns))
    return figure


@_styled
def _learning_curves(trials: Trials) -> Figure:
    figure = _figure(6.4, 4.2, trials.title("validation accuracy by epoch"))
    axes = figure.add_subplot()
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    styles: list[tuple[Sequence[FrozenTrial], dict[str, Any]]] = [
        (trials.pruned, {"color": GREY, "ls": ":", "marker": "x", "label": "pruned"}),
        (trials.completed, {"color": BLUE, "alpha": 0.45, "marker": ".", "label": "completed"}),
        ([trials.best], {"color": ORANGE, "lw": 2.5, "marker": "o", "label": "best"}),
    ]
    for some, style in styles:
        for trial in some:
            epochs = sorted(trial.intermediate_values.items())
            axes.plot([e for e, _ in epochs], [value for _, value in epochs], **style)
            style["label"] = None  # one line of each kind stands in the legend
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@_styled
def _expected_best(trials: Trials, values: Sequence[float]) -> Figure:
    """What fewer trials would have found: expected maximum, with one standard deviation."""
    figure = _figure(6.4, 4.2, trials.title("expected best validation accuracy"))
    axes = figure.add_subplot()
    axes.set(xlabel="trials drawn", ylabel="validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mean, std = np.array(expected_maximum(values)).T
    n = np.arange(1, len(values) + 1)
    # No maximum lies above the best.
    band = (np.maximum(mean - std, min(values)), np.minimum(mean + std, max(values)))
    axes.fill_between(n, *band, color=BLUE, alpha=0.2, lw=0, label="± 1 standard deviation")
    axes.plot(n, mean, color=BLUE, lw=2, label="expected best of so many independent draws")
    axes.axhline(max(values), color=ORANGE, ls="--", lw=1, label="best drawn")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@_styled
def _contour(trials: Trials) -> Figure:
    """Two parameters: the trials, coloured by their value, on a surface laid through them."""
    figure = _figure(6.4, 5.0, trials.title("validation accuracy by both searched values"))
    axes = figure.add_subplot()
    first, second = trials.shared
    x, y = first.places(trials.completed), second.places(trials.completed)
    values = _values(trials.completed)
    if not (first.choices or second.choices):
        try:
            triangles = Triangulation(first.scale(x), second.scale(y)).triangles
            axes.tricontourf(Triangulation(x, y, triangles), values, 12, cmap=COLOURS, alpha=0.6)
        except (RuntimeError, ValueError):
            pass  # too few trials, or all on one line: there is no surface
    dots = axes.scatter(x, y, c=values, cmap=COLOURS, edgecolors="black", s=45, zorder=3)
    best = [trials.best]
    axes.plot(first.places(best), second.places(best), **BEST)
    first.put_on(axes, "x")
    second.put_on(axes, "y")
    axes.use_sticky_edges = False
    axes.margins(0.06)
    axes.autoscale_view()
    figure.colorbar(dots, label="validation accuracy")
    figure.legend(loc="outside lower center")
    return figure


@_styled
def _parallel_coordinates(trials: Trials) -> Figure:
    """More than two parameters: a line for each completed trial, through all its values."""
    parameters = trials.shared
    title = trials.title("searched values of the completed trials")
    figure = _figure(max(6.4, 1.7 * len(parameters) + 1.2), 4.6, title)
    axes = figure.add_subplot()
    heights = []
    for column, parameter in enumerate(parameters):
        places = parameter.scale(parameter.places(trials.completed))
        low, high = places.min(), places.max()
        if parameter.choices:
            low, high = 0, len(parameter.choices) - 1
            ticks = list(zip(range(len(parameter.choices)), parameter.choices, strict=True))
        else:
            ends = sorted({low, (low + high) / 2, high})
            ticks = [(end, f"{10**end if parameter.log else end:.3g}") for end in ends]
        span = (high - low) or 1
        heights.append((places - low) / span)
        axes.axvline(column, color=GREY, lw=1)
        for tick, words in ticks:
            beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
            box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
            place = (column, (tick - low) / span)
            axes.annotate(words, place, **beside, va="center", fontsize=9, bbox=box, zorder=5)
    values = _values(trials.completed)
    colours = matplotlib.colormaps[COLOURS]
    span = Normalize(values.min(), values.max())
    for index in np.argsort(values):
        is_best = trials.completed[index] is trials.best
        line = [height[index] for height in heights]
        axes.plot(
            line,
            color=ORANGE if is_best else colours(span(values[index])),
            lw=2.5 if is_best else 1.2,
            label="best" if is_best else None,
        )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.1, len(parameters) - 0.6)
    axes.set_xticks(range(len(parameters)), [parameter.name for parameter in parameters])
    axes.yaxis.set_major_locator(NullLocator())
    scale = matplotlib.cm.ScalarMappable(span, COLOURS)
    figure.colorbar(scale, ax=axes, label="validation accuracy")
    figure.legend(loc="outside lower center")
    return figure


@_styled
def _importances(trials: Trials, importance: Mapping[str, float]) -> Figure:
    figure = _figure(6.4, 1.4 + 0.4 * len(importance), trials.title("importance by PED-ANOVA"))
    axes = figure.add_subplot()
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh(names, [importance[name] for name in names], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel("relative importance for the validation accuracy")
    axes.set_xlim(0, 1.1 * max(importance.values()))
    axes.grid(False)
    return figure


@_styled
def _confirmation(study_name: str, confirmed: Mapping[str, Sequence[float]]) -> Figure:
    n = len(next(iter(confirmed.values())))
    seeds = f"n = {number_of(n, 'seed')}, trained on all training images"
    figure = _figure(6.4, 1.7 + 0.7 * len(confirmed), f"{study_name}: confirmation\n{seeds}")
    axes = figure.add_subplot()
    for row, values in enumerate(confirmed.values()):
        colour, marker = ((ORANGE, "o"), (BLUE, "s"))[row]
        axes.plot(values, [row - 0.12] * n, marker, color=colour, alpha=0.6)
        if n > 1:
            found = summarize(values)
            half = (found.high - found.low) / 2
            axes.errorbar(found.mean, row + 0.12, xerr=half, fmt="D", color=colour, capsize=5)
    axes.set_yticks(range(len(confirmed)), list(confirmed))
    axes.set_ylim(len(confirmed) - 0.5, -0.5)
    what = "each seed" if n == 1 else "each seed, and their mean with its 95% interval"
    axes.set_xlabel(f"test accuracy: {what}")
    axes.grid(False, axis="y")
    return figure


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, **options)
    return buffer.getvalue()
