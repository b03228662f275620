"""Figures of a study show its trials, all of them, at their values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.base.trials import SearchedParameter, TrialRow
from harness.figures import style
from harness.figures.study_figures import draw_study

LR = SearchedParameter("lr", low=1e-3, high=1.0, log=True)
WIDTH = SearchedParameter("hidden_width", low=16, high=1024, log=True, step=1)
BATCH = SearchedParameter("batch_size", choices=(64, 128))
DEFAULTS = {"lr": 0.1, "hidden_width": 256, "batch_size": 128}

LONG = "a_study_with_a_name_that_goes_on_" * 8


def trial(number: int, outcome: str = "completed", value: float | None = 0.5) -> TrialRow:
    generator = np.random.default_rng(number)
    params = {
        "lr": float(10 ** generator.uniform(-3, 0)),
        "hidden_width": int(generator.integers(16, 1024)),
        "batch_size": int(generator.choice([64, 128])),
    }
    if number == 0:
        params = dict(DEFAULTS)
    epochs = {} if value is None else {1: value / 2, 2: value}
    return TrialRow(number, outcome, () if value is None else (value,), params, epochs)


ROWS = [
    trial(0, value=0.5),
    trial(1, value=0.4),
    trial(2, "pruned", 0.3),
    trial(3, "diverged", None),
    trial(4, "failed", None),
    trial(5, value=0.8),
    trial(6, value=0.7),
    trial(7, "interrupted", None),
    trial(8, "running", None),
]


GOAL: dict[str, Any] = {"validation/accuracy": "maximize"}


def drawn(
    parameters: Sequence[SearchedParameter] = (LR, WIDTH, BATCH), **changes: Any
) -> dict[str, Figure]:
    names = [parameter.name for parameter in parameters]
    rows = [
        dataclasses.replace(row, params={name: row.params[name] for name in names})
        for row in changes.pop("rows", ROWS)
    ]
    defaults = {name: DEFAULTS[name] for name in names}
    confirmed = changes.pop("confirmed", {})
    options = {"importances": {}, "objectives": GOAL, "chosen": [5], **changes}
    return draw_study(options.pop("name", "some"), rows, parameters, defaults, confirmed, **options)


def words_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}


def lines_of(figure: Figure, panel: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    return {
        str(line.get_label()): (
            np.asarray(line.get_xdata()).tolist(),
            np.asarray(line.get_ydata()).tolist(),
        )
        for line in figure.axes[panel].lines
    }


def test_which_figures_there_are_depends_on_the_parameters() -> None:
    always = {"optimization_history", "slices", "learning_curves", "expected_best"}
    assert drawn([LR]).keys() == always
    assert drawn([LR, WIDTH]).keys() == {*always, "contour"}
    words = words_of(drawn([LR, WIDTH])["contour"])
    assert "Validation accuracy by lr and hidden_width" in words
    assert drawn().keys() == {*always, "parallel_coordinates"}
    figures = drawn(
        importances={"lr": 0.8, "batch_size": 0.2}, confirmed={"best": {"test/accuracy": [0.5]}}
    )
    assert figures.keys() == {*always, "parallel_coordinates", "importances", "confirmation"}
    assert "expected_best" not in drawn(rows=ROWS[:2], chosen=[0])


@pytest.mark.parametrize("metric", ["accuracy", "a_long_name_of_a_metric_" * 8])
@pytest.mark.parametrize("several", [False, True])
def test_no_legend_and_no_label_is_cut_off_at_an_edge(metric: str, several: bool) -> None:
    options: dict[str, Any] = {"objectives": {f"validation/{metric}": "maximize"}}
    names = [f"test/{metric}"]
    if several:
        options["objectives"]["model/parameters"] = "minimize"
        names.append("model/parameters")
        options["rows"] = [
            dataclasses.replace(row, values=(*row.values, 40.0 + 1000 * row.number))
            if row.values
            else row
            for row in ROWS
        ]
    confirmed = {name: {key: [0.5, 0.6] for key in names} for name in ("best", "defaults")}
    importances = {"lr": 0.8, "batch_size": 0.2}
    for name, figure in drawn(confirmed=confirmed, importances=importances, **options).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        parts = [*figure.legends, *figure.texts]
        parts += [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
        for part in parts:
            box = part.get_window_extent()
            assert min(box.x0, box.y0) >= 0, (name, part)
            assert box.x1 <= figure.bbox.x1, (name, part)
            assert box.y1 <= figure.bbox.y1, (name, part)
        assert not any("mathdefault" in words for words in words_of(figure)), name


def test_a_study_without_a_completed_trial_has_no_figures() -> None:
    with pytest.raises(ValueError, match="without a completed trial"):
        drawn(rows=[trial(0, "pruned", 0.5)], chosen=[])


def test_the_history_shows_every_trial_by_outcome_and_the_best_so_far() -> None:
    lines = lines_of(drawn()["optimization_history"])
    assert lines["completed"] == ([0, 1, 5, 6], [0.5, 0.4, 0.8, 0.7])
    assert lines["pruned, last epoch"] == ([2], [0.3])
    assert lines["diverged or failed"][0] == [3, 4]
    assert lines["best so far"] == ([0, 1, 5, 6], [0.5, 0.5, 0.8, 0.8])


def test_slices_show_values_choices_and_the_default() -> None:
    figure = drawn()["slices"]
    lines = lines_of(figure)
    assert lines["best"] == ([ROWS[5].params["lr"]], [0.8])
    assert lines["default"][0] == [0.1, 0.1]
    places = lines_of(figure, 2)
    assert places["default"][0] == [1, 1]
    assert set(places["completed"][0]) <= {0.0, 1.0}
    assert {"64", "128"} <= {label.get_text() for label in figure.axes[2].get_xticklabels()}


def test_a_parameter_that_some_trials_lack_is_shown_where_it_is() -> None:
    rows = [dataclasses.replace(row, params={"lr": row.params["lr"]}) for row in ROWS[:5]]
    rows += ROWS[5:]
    figures = draw_study("some", rows, [LR, WIDTH], {"lr": 0.1}, {}, GOAL, [5], importances={})
    assert "contour" not in figures
    lines = lines_of(figures["slices"], 1)
    assert len(lines["completed"][0]) == 2
    assert "default" not in lines


def test_every_figure_says_of_which_study_and_how_many_trials() -> None:
    for figure in drawn(importances={"lr": 1.0}).values():
        assert {"some", "n = 7 trials, 4 completed"} <= words_of(figure)


def test_the_objective_and_its_direction_are_data() -> None:
    figures = drawn(
        [LR, WIDTH],
        objectives={"validation/loss": "minimize"},
        chosen=[1],
        importances={"lr": 1.0, "hidden_width": 0.0},
        confirmed={"best": {"test/loss": [0.1, 0.2]}, "defaults": {"test/loss": [0.3, 0.4]}},
    )
    words = {name: " | ".join(words_of(figure)) for name, figure in figures.items()}
    assert not any("accuracy" in text for text in words.values())
    assert "Validation loss by trial" in words["optimization_history"]
    assert "test loss: each seed" in words["confirmation"]
    lines = lines_of(figures["optimization_history"])
    assert lines["best so far"] == ([0, 1, 5, 6], [0.5, 0.4, 0.4, 0.4])
    assert lines_of(figures["slices"])["best"][1] == [0.4]
    expected = lines_of(figures["expected_best"])
    assert expected["best drawn"][1] == [0.3, 0.3]
    means = expected["expected best of n independent draws"][1]
    assert means == sorted(means, reverse=True)


def test_everything_fits_on_the_figure_and_is_drawn() -> None:
    many = [trial(number, value=0.5 + number / 100) for number in range(30)]
    for parameters in ([LR], [LR, WIDTH], [LR, BATCH], [LR, WIDTH, BATCH]):
        figures = drawn(
            parameters,
            rows=many,
            name=LONG,
            importances={parameter.name: 0.5 for parameter in parameters},
            confirmed={
                "best": {"test/accuracy": [0.9, 0.91]},
                "defaults": {"test/accuracy": [0.8, 0.81]},
            },
        )
        for name, figure in figures.items():
            figure.draw_without_rendering()
            box = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert (box.x0 >= 0, box.y0 >= 0, box.x1 <= width, box.y1 <= height) == (True,) * 4, (
                name
            )
            assert any(word.startswith("a_study_with") for word in words_of(figure))
            assert re.match(rb"\x89PNG", style.png(figure))
