"""Pictures of a study, from Optuna's own matplotlib plots, and its trials as tables."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.visualization import matplotlib as plots

from harness.search.claim import count

FEWEST_FOR_IMPORTANCES = 20
"""With fewer completed trials an importance is noise."""

ORANGE, BLUE, GREY = "#D55E00", "#0072B2", "#999999"
"""From Okabe and Ito's palette, which colour-blind readers tell apart."""


def draw(
    stored: optuna.Study, names: list[str], confirmed: Mapping[str, Mapping[int, float]]
) -> dict[str, bytes]:
    """The study's figures as PNG files, by their path among the artifacts.

    Args:
        names: the searched fields.
        confirmed: test accuracy by seed, for each confirmed configuration.
    """
    completed = stored.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    n = count(stored.get_trials(deepcopy=False)).finished
    title = f"{stored.study_name}, n = {n} trials"
    drawn: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these plots experimental
        drawn["optimization_history"] = plots.plot_optimization_history(stored)
        drawn["slices"] = plots.plot_slice(stored, params=names) if names else None
        drawn["learning_curves"] = plots.plot_intermediate_values(stored)
        if len(names) == 2:
            drawn["contour"] = plots.plot_contour(stored, params=names)
        if len(names) > 2:
            drawn["parallel_coordinates"] = plots.plot_parallel_coordinate(stored, params=names)
        if len(names) > 1 and len(completed) >= FEWEST_FOR_IMPORTANCES:
            drawn["importances"] = plots.plot_param_importances(
                stored, evaluator=PedAnovaImportanceEvaluator(), params=names
            )
    files = {}
    for name, axes in drawn.items():
        if axes is not None:
            figure = pyplot.gcf() if not hasattr(axes, "figure") else axes.figure
            if name == "learning_curves":
                _calm(axes)
            figure.suptitle(title + (", PED-ANOVA" if name == "importances" else ""), fontsize=11)
            files[f"figures/{name}.png"] = _png(figure)
    pyplot.close("all")
    if confirmed:
        files["figures/confirmation.png"] = _png(_confirmation(stored.study_name, confirmed))
    return files


def importances(stored: optuna.Study, names: list[str]) -> dict[str, float]:
    """Importance of each searched field by PED-ANOVA; empty with too few completed trials."""
    completed = stored.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(names) < 2 or len(completed) < FEWEST_FOR_IMPORTANCES:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(
            stored, evaluator=PedAnovaImportanceEvaluator(), params=names
        )


def trials_csv(stored: optuna.Study) -> str:
    """Every trial, one a row: number, outcome, value, epochs, seconds, parameters, run id."""
    frame = stored.trials_dataframe(
        attrs=("number", "state", "value", "duration", "params", "user_attrs")
    )
    frame["seconds"] = frame.pop("duration").dt.total_seconds()
    columns = [c for c in frame.columns if c not in ("user_attrs_owner",)]
    renamed = {c: c.removeprefix("params_").removeprefix("user_attrs_") for c in columns}
    return str(frame[columns].rename(columns=renamed).to_csv(index=False))


def _calm(axes: Any) -> None:
    """Thin grey lines for all trials: a legend of sixty colours tells nothing."""
    for line in axes.get_lines():
        line.set(color=GREY, alpha=0.5, linewidth=1, marker="")
    if legend := axes.get_legend():
        legend.remove()
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")


def _confirmation(study_name: str, confirmed: Mapping[str, Mapping[int, float]]) -> Figure:
    from harness.statistics import summarize

    figure = Figure(figsize=(6, 2 + 0.6 * len(confirmed)))
    axes = figure.add_subplot()
    for row, accuracies in enumerate(confirmed.values()):
        values = list(accuracies.values())
        summary = summarize(values)
        color = ORANGE if row == 0 else BLUE
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.5, markersize=6)
        if summary.n > 1:
            half = summary.high - summary.mean
            axes.errorbar(
                summary.mean, row + 0.2, xerr=half, fmt="D", color=color, capsize=5, markersize=7
            )
    axes.set_yticks(range(len(confirmed)), list(confirmed))
    axes.set_ylim(-0.5, len(confirmed) - 0.2)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy: each seed, and the mean with its 95% interval")
    n = len(next(iter(confirmed.values())))
    axes.set_title(f"{study_name}: confirmation, n = {n} seeds", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    figure.subplots_adjust(left=0.15, bottom=0.25, right=0.97, top=0.88)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
