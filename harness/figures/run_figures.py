"""The figures of a finished run, and the numbers in them, from plain data.

The figures are read as thumbnails: at 300 pixels of width, 10-point letters are still 8 pixels
high.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.base.formatting import csv_text, number_of
from harness.base.inspection import (
    FirstLayer,
    Inspection,
    Mistakes,
    PredictedClasses,
    PredictedNumbers,
)
from harness.base.metric_names import AVERAGE, JUDGES, averages, quantities
from harness.base.statistics import wilson_interval
from harness.figures.style import (
    BLUE,
    DARK_VERMILLION,
    DIVERGING_MAP,
    GREEN,
    GREY,
    LIGHT_GREY,
    MARGIN,
    NARROW,
    PALE_BLUE,
    PURPLE,
    SEQUENTIAL_MAP,
    VERMILLION,
    drawn,
    headed_figure,
    heading_height,
    place_axes,
    styled,
    text_width,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

History = Sequence[tuple[int, dict[str, float]]]
"""Epochs, counted from 1, each with its metrics."""

PART_COLOURS = {"train": VERMILLION, "validation": GREEN, "test": BLUE}
"""The parts of a dataset that have metrics."""

AVERAGED = "averaged"
"""The curve of the averaged weights, on the part of the data that judges."""

CURVES = {name: (colour, "-", "o") for name, colour in PART_COLOURS.items()} | {
    "train": (PART_COLOURS["train"], "--", "s"),
    AVERAGED: (PURPLE, "-", "D"),
}
"""Colour, line and marker of each learning curve."""

PREDICTED, TRUE = DARK_VERMILLION, BLUE
"""Colours of the words for predicted and true classes."""

MOST_NAMED = 60
"""The most classes whose names and accuracies are shown."""

MOST_OUTPUTS = 6
"""The most outputs of a regression that have a panel."""

HEADING = heading_height(["run", "data"])
"""Inches that the heading of every figure takes."""


def draw_run(
    run_title: str,
    dataset: str,
    history: History,
    inspection: Inspection,
) -> dict[str, Figure]:
    """All figures of a run, by name.

    The heading of each says what it shows, of which run, and how many examples of which dataset it
    is based on. What cannot be shown of these data or this network has no figure.

    Args:
        run_title: the name of the run, as `baseline lr=0.05`.
    """
    n = number_of(inspection.size, f"{inspection.evaluated_on} example")
    lines = [run_title, f"{dataset}, n = {n}, 1 seed"]
    names: list[str] = []
    drawings: dict[str, Callable[[], Figure]] = {}
    drawings["learning_curves"] = partial(learning_curves, history, lines)
    match inspection.predicted:
        case PredictedClasses() as predicted:
            names = _names(predicted)
            counts = confusion(predicted, len(names))
            drawings["confusion_matrix"] = partial(confusion_matrix, counts, names, lines)
            drawings["class_accuracy"] = partial(class_accuracy, predicted, names, lines)
            if predicted.mistakes.images is not None:
                drawings["confident_mistakes"] = partial(
                    confident_mistakes, predicted.mistakes, names, lines
                )
        case PredictedNumbers() as predicted:
            drawings["predicted_numbers"] = partial(predicted_numbers, predicted, lines)
    if inspection.first_layer:
        # Weights are not a matter of how many examples were evaluated.
        lines = [run_title, f"trained on {dataset}, 1 seed"]
        drawings["first_layer"] = partial(first_layer, inspection.first_layer, names, lines)
    return drawn(drawings)


def tables(history: History, inspection: Inspection) -> dict[str, str]:
    """The numbers in the figures of `draw_run`, by file name: CSV, and JSON for the first layer."""
    texts = {"learning_curves.csv": learning_curves_table(history)}
    match inspection.predicted:
        case PredictedClasses() as predicted:
            names = _names(predicted)
            counts = confusion(predicted, len(names))
            texts["confusion_matrix.csv"] = confusion_matrix_table(counts, names)
            texts["class_accuracy.csv"] = class_accuracy_table(predicted, names)
            texts["confident_mistakes.csv"] = confident_mistakes_table(predicted.mistakes, names)
        case PredictedNumbers() as predicted:
            texts["predicted_numbers.csv"] = predicted_numbers_table(predicted)
    if inspection.first_layer:
        texts["first_layer.json"] = first_layer_table(inspection.first_layer)
    return {f"figures/{name}": text for name, text in texts.items()}


def confusion(predicted: PredictedClasses, classes: int) -> NDArray[np.int64]:
    """Number of examples by true class (row) and predicted class (column), (c, c)."""
    cells = predicted.labels * classes + predicted.predictions
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


@styled()
def learning_curves(history: History, lines: Sequence[str]) -> Figure:
    """The loss and every metric by epoch, two in a row, for every part of the data that has them.

    Where weights were averaged, their curve stands beside that of the last update. Values that are
    not finite are left out.

    Args:
        lines: the run and its data, for the heading.
    """
    known = dict.fromkeys(name for _, metrics in history for name in metrics)
    measured, averaged = quantities(known), averages(known)
    height = HEADING + 2.3 * math.ceil(len(measured) / 2) + 0.22
    figure = headed_figure(NARROW, height, "Learning curves", lines)
    drawn: set[str] = set()
    for number, quantity in enumerate(measured):
        left, top = 0.5 + 2.46 * (number % 2), HEADING + 0.22 + 2.3 * (number // 2)
        axes = place_axes(figure, left, top, 1.9, 1.6)
        axes.set_title(quantity, fontweight="bold")
        axes.set_xlabel("epoch")
        axes.grid(False, axis="x")
        axes.locator_params("x", integer=True, nbins=5, min_n_ticks=1)
        axes.locator_params("y", nbins=5)
        # A very large or small loss gets a power of ten above the axis, not a label off the page.
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
        lines_drawn = [(name, f"{name}/{quantity}", CURVES[name]) for name in PART_COLOURS]
        if quantity in averaged:
            lines_drawn += [
                (AVERAGED, f"{name}/{AVERAGE}{quantity}", CURVES[AVERAGED]) for name in JUDGES
            ]
        for name, key, (colour, linestyle, marker) in lines_drawn:
            points = [
                (epoch, metrics[key])
                for epoch, metrics in history
                if key in metrics and math.isfinite(metrics[key])
            ]
            if points:
                drawn.add(name)
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    label=name,
                    linewidth=1.8,
                    linestyle=linestyle,
                    marker=marker if len(points) <= 15 else None,
                    markersize=4,
                )
        if len(history) == 1:
            axes.set_xlim(history[0][0] - 0.5, history[0][0] + 0.5)
        if not axes.lines:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "none", ha="center", color=GREY, transform=axes.transAxes)
        elif number == min(1, len(measured) - 1):
            axes.legend(loc="best", fontsize=10, handlelength=2.2, borderpad=0.2, labelspacing=0.3)
    notes = ["train: mean over the epoch's updates"] if "train" in drawn else []
    after = [name for name in CURVES if name in drawn - {"train"}]
    notes += [f"{', '.join(after)}: after the epoch"] if after else []
    write(figure, MARGIN, height - 0.1, "; ".join(notes), fontsize=8, color=GREY)
    return figure


def learning_curves_table(history: History) -> str:
    """CSV, one row for each epoch; losses are means over examples."""
    known = dict.fromkeys(name for _, metrics in history for name in metrics)
    keys = [
        key
        for part in PART_COLOURS
        for prefix, measured in (("", quantities(known)), (AVERAGE, averages(known)))
        for quantity in measured
        if (key := f"{part}/{prefix}{quantity}") in known
    ]
    rows = ([epoch, *(metrics.get(key, "") for key in keys)] for epoch, metrics in history)
    return csv_text(["epoch", *keys], rows)


@styled()
def confusion_matrix(
    counts: NDArray[np.int64], names: Sequence[str], lines: Sequence[str]
) -> Figure:
    """Counts by true class (row) and predicted class (column), coloured by their share of the row.

    Args:
        counts: (c, c), from `confusion`.
        names: c names.
        lines: the run and its data, for the heading.
    """
    from matplotlib.colors import PowerNorm

    classes = len(names)
    # Of very many classes, neither names nor counts could be read.
    every = 1 if classes <= MOST_NAMED else math.ceil(classes / MOST_NAMED)
    shown = list(names[::every]) if every == 1 else [str(i) for i in range(0, classes, every)]
    turned = max(map(len, shown)) > 2
    left, top = 0.3 + _width(shown), HEADING + 0.1
    below = 0.22 + _width(shown) * math.sqrt(0.5) if turned else 0.45
    side = NARROW - left - 0.78
    figure = headed_figure(NARROW, top + side + below, "Confusion matrix", lines)
    axes = place_axes(figure, left, top, side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # On a square-root scale even one mistake in a hundred is visible.
    norm = PowerNorm(0.5, 0, 1)
    image = axes.imshow(shares, cmap=SEQUENTIAL_MAP, norm=norm, aspect="auto")
    axes.grid(False)
    points = min(10.0, side / classes * 72 / (0.68 * len(str(counts.max()))))
    for (row, column), count in np.ndenumerate(counts) if points >= 4 else ():
        colour = "black" if norm(shares[row, column]) > 0.5 else "white" if count else PALE_BLUE
        axes.text(
            column,
            row,
            str(count),
            color=colour,
            fontsize=points,
            ha="center",
            va="center_baseline",
        )
    small = min(10.0, side / len(shown) * 72 / 1.1)
    axes.set_xticks(range(0, classes, every), shown, fontsize=small)
    if turned:
        for tick_label in axes.get_xticklabels():
            tick_label.set(rotation=45, ha="right", va="center", rotation_mode="anchor")
    axes.set_yticks(range(0, classes, every), shown, fontsize=small)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", color=PREDICTED, fontweight="bold")
    axes.set_ylabel("true", color=TRUE, fontweight="bold")
    bar = place_axes(figure, left + side + 0.1, top, 0.11, side)
    _colour_bar(image, bar, {share: f"{share:.0%}" for share in (0, 0.01, 0.05, 0.2, 0.5, 1)})
    bar.set_title("of row", fontsize=9)
    return figure


def confusion_matrix_table(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """CSV, one row for each true class, one column for each predicted class."""
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    return csv_text(["true", *names], rows)


@styled()
def class_accuracy(
    predicted: PredictedClasses, names: Sequence[str], lines: Sequence[str]
) -> Figure:
    """Accuracy of each class with its 95% Wilson interval, and of all examples as a line.

    The interval covers the choice of the examples, not the difference that another seed would make.
    Of very many classes, those with the lowest accuracy are shown.

    Args:
        lines: the run and its data, for the heading.
    """
    rows, top = _class_rows(predicted, names), HEADING + 0.25
    if len(rows) > MOST_NAMED:
        lines, top = [*lines, f"the lowest {MOST_NAMED} of {len(rows):,} classes"], top + 0.2
        rows = sorted((row for row in rows if row[1]), key=lambda row: row[3])[:MOST_NAMED]
        names = [row[0] for row in rows]
    left, height = 0.15 + _width(names), 0.27 * len(names)
    figure = headed_figure(NARROW, top + height + 0.5, "Accuracy by class", lines)
    axes = place_axes(figure, left, top, NARROW - left - 1.42, height)
    for row, (_, n, _, accuracy, low, high) in enumerate(rows):
        if n:
            axes.plot([100 * low, 100 * high], [row, row], color=TRUE, linewidth=3, alpha=0.45)
            axes.plot([100 * accuracy], [row], color=TRUE, marker="o", markersize=6)
        axes.text(
            1.05,
            row,
            f"{accuracy:.1%} of {n:,}" if n else "no examples",
            transform=axes.get_yaxis_transform(),
            va="center_baseline",
        )
    overall = 100 * float((predicted.labels == predicted.predictions).mean())
    axes.axvline(overall, color=PREDICTED, linewidth=1.4, linestyle="--", zorder=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.locator_params("x", nbins=5)
    axes.set_xlabel("accuracy, %, with 95% Wilson interval")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    low, high = axes.get_xlim()
    # Centred on the line, but far enough from the ends for the words to stay on the figure.
    x = min(0.85, max(0.15, (overall - low) / (high - low)))
    axes.set_title(f"all: {overall:.1f}%", color=PREDICTED, fontsize=10, x=x)
    return figure


def class_accuracy_table(predicted: PredictedClasses, names: Sequence[str]) -> str:
    """CSV, one row for each class; accuracy and its 95% Wilson interval are fractions."""
    header = ["class", "examples", "correct", "accuracy", "low", "high"]
    return csv_text(header, _class_rows(predicted, names))


@styled()
def confident_mistakes(mistakes: Mistakes, names: Sequence[str], lines: Sequence[str]) -> Figure:
    """The most confident mistakes: confidence, image, predicted class, true class.

    Args:
        names: by label.
        lines: the run and its data, for the heading.
    """
    heading, columns, k = "Most confident mistakes", 6, len(mistakes.labels)
    if not k or mistakes.images is None:
        height = HEADING + 0.2
        return headed_figure(NARROW, height, heading, [*lines, "none: every prediction is right"])
    images, side = _enlarged(mistakes.images)
    # The size of a tile, in pixels of the images: one line of text above the image, two below.
    unit = side / 28
    wide, high, left, above = (round(size * unit) for size in (38, 59, 5, 10))
    rows, inch = math.ceil(k / columns), (NARROW - MARGIN) / columns / wide
    figure = headed_figure(NARROW, HEADING + 0.24 + rows * high * inch, heading, lines)
    for offset, word, colour in (
        (0.0, "confidence", GREY),
        (1.0, "predicted", PREDICTED),
        (1.9, "true", TRUE),
    ):
        write(figure, MARGIN + offset, HEADING + 0.16, word, color=colour, fontweight="bold")
    width, height = columns * wide * inch, rows * high * inch
    axes = place_axes(figure, MARGIN / 2, HEADING + 0.24, width, height)
    axes.set_axis_off()
    shown = [names[label] for label in (*mistakes.labels, *mistakes.predictions)]
    points = min(10.0, 10 * wide * inch / _width(shown))
    # One mosaic, because a small image takes Matplotlib as long as a large one.
    mosaic = np.full((rows * high, columns * wide, *images.shape[3:]), 255)
    for i, image in enumerate(images):
        y, x = i // columns * high + above, i % columns * wide + left
        # In the middle of its square.
        down, right = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
        mosaic[y + down :, x + right :][: image.shape[0], : image.shape[1]] = image
        sure = float(mistakes.confidence[i])
        for line, text, colour, size in (
            (y - 5 * unit, ">99.9%" if sure > 0.9995 else f"{sure:.1%}", GREY, 9.0),
            (y + 32 * unit, names[mistakes.predictions[i]], PREDICTED, points),
            (y + 41 * unit, names[mistakes.labels[i]], TRUE, points),
        ):
            middle = x + side / 2
            axes.text(middle, line, text, color=colour, fontsize=size, ha="center", va="center")
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, aspect="auto")
    return figure


def confident_mistakes_table(mistakes: Mistakes, names: Sequence[str]) -> str:
    """CSV, one row for each mistake, the most confident first; positions count from 0."""
    rows = zip(
        mistakes.positions.tolist(),
        (names[label] for label in mistakes.labels),
        (names[label] for label in mistakes.predictions),
        # The fewest digits from which the float32 can be read back.
        map(str, mistakes.confidence),
        strict=True,
    )
    return csv_text(["position", "true", "predicted", "confidence"], rows)


@styled()
def predicted_numbers(predicted: PredictedNumbers, lines: Sequence[str]) -> Figure:
    """Predicted against true numbers, one panel for each of the first outputs.

    Args:
        lines: the run and its data, for the heading.
    """
    outputs = predicted.labels.shape[1]
    panels = min(outputs, MOST_OUTPUTS)
    some = "" if panels == outputs else f": outputs 1 to {panels} of {outputs:,}"
    columns = min(2, panels)
    side = 3.9 if columns == 1 else 1.6
    height = HEADING + (side + 0.7) * math.ceil(panels / columns)
    figure = headed_figure(NARROW, height, f"Predicted and true numbers{some}", lines)
    for output in range(panels):
        left = 0.85 + 2.4 * (output % columns)
        top = HEADING + 0.22 + (side + 0.7) * (output // columns)
        axes = place_axes(figure, left, top, side, side)
        if panels > 1:
            axes.set_title(f"output {output + 1}", fontweight="bold")
        true, told = predicted.labels[:, output], predicted.predictions[:, output]
        known = np.isfinite(told)
        axes.plot(true[known], told[known], "o", color=BLUE, markersize=3, alpha=0.5, mew=0)
        both = np.concatenate([true, told[known]])
        ends = [float(both.min()), float(both.max())]
        axes.plot(ends, ends, color=GREY, linewidth=1.2, linestyle="--")
        axes.locator_params(nbins=5)
        axes.set_xlabel("true", color=TRUE, fontweight="bold")
        if output % columns == 0:
            axes.set_ylabel("predicted", color=PREDICTED, fontweight="bold")
    return figure


def predicted_numbers_table(predicted: PredictedNumbers) -> str:
    """CSV, one row for each example; positions count from 0."""
    outputs = predicted.labels.shape[1]
    names = [""] if outputs == 1 else [f"_{number + 1}" for number in range(outputs)]
    header = ["position", *(f"{what}{name}" for what in ("true", "predicted") for name in names)]
    # The fewest digits from which each float32 can be read back.
    both = np.concatenate([predicted.labels, predicted.predictions], axis=1).astype(str)
    return csv_text(header, ([position, *row] for position, row in enumerate(both.tolist())))


@styled()
def first_layer(layer: FirstLayer, names: Sequence[str], lines: Sequence[str]) -> Figure:
    """The weights as images, all on one scale: red above zero and blue below.

    Weights for colours are shown in these colours, on a grey that stands for zero.

    Args:
        names: by label, for a layer whose units are classes.
        lines: the run and its data, for the heading.
    """
    m, height, width, *colours = layer.weights.shape
    what = "kernels" if layer.kind == "convolution" else "units"
    some = f"{m} of {layer.size} {what}" if m < layer.size else f"all {m} {what}"
    rows = math.ceil(m / min(8, math.ceil(math.sqrt(2 * m))))
    columns, labelled = math.ceil(m / rows), m <= 20
    # Small kernels are enlarged, so that the gaps between them are narrower than a weight.
    enlarged = max(1, 28 // max(height, width))
    height, width, gap = height * enlarged, width * enlarged, 2
    high, wide = height + (9 if labelled else gap), width + gap
    inch = min((NARROW - MARGIN - 0.8) / columns, 1.4) / wide
    full_width, full_height = columns * wide * inch, rows * high * inch
    figure = headed_figure(NARROW, HEADING + 0.12 + full_height, f"First layer: {some}", lines)
    axes = place_axes(figure, MARGIN, HEADING, full_width, full_height)
    axes.set_axis_off()
    mosaic = np.full((rows * high, columns * wide, *colours), np.nan, np.float32)
    order = np.argsort(layer.units) if layer.units_are_classes else np.arange(m)
    frames: list[tuple[float, float]] = []
    for i, weights in enumerate(layer.weights[order]):
        bottom, left = (i // columns + 1) * high - 1, i % columns * wide + 1
        top, right = bottom - height, left + width
        mosaic[top:bottom, left:right] = weights.repeat(enlarged, 0).repeat(enlarged, 1)
        # Pixel i of an image reaches from i - 0.5 to i + 0.5.
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        frames += [*((x - 0.5, y - 0.5) for x, y in corners), (math.nan, math.nan)]
        if labelled:
            unit = int(layer.units[order[i]])
            is_class = layer.units_are_classes and unit < len(names)
            text = names[unit] if is_class else f"{what[:-1]} {unit}"
            points = min(10.0, 10 * wide * inch / _width([text]))
            axes.text((left + right) / 2, top - 4, text, fontsize=points, ha="center", va="center")
    sizes = np.abs(layer.weights[np.isfinite(layer.weights)])
    # A few much larger weights would make all others look white; the bar has arrows for them.
    scale = float(np.quantile(sizes, 0.995)) if sizes.any() else 1.0
    shown = _in_colours(mosaic, scale) if colours else mosaic
    image = axes.imshow(shown, cmap=DIVERGING_MAP, vmin=-scale, vmax=scale, aspect="auto")
    axes.plot(*zip(*frames, strict=True), color=LIGHT_GREY, linewidth=0.6)
    axes.set_xlim(-0.5, columns * wide - 0.5)
    axes.set_ylim(rows * high - 0.5, -0.5)
    if not colours:
        bar = place_axes(figure, MARGIN + full_width + 0.08, HEADING, 0.11, full_height)
        _colour_bar(image, bar, extend="both" if sizes.max(initial=0) > scale else "neither")
    return figure


def first_layer_table(layer: FirstLayer) -> str:
    """JSON: the units, the largest norm first, each with its rows of weights.

    A weight that is not finite is null, because JSON cannot express it.
    """
    rows = (
        # The fewest digits from which each float32 can be read back.
        f'{{"unit": {unit}, "weights": [{", ".join(map(_json_row, weights))}]}}'
        for unit, weights in zip(layer.units, layer.weights, strict=True)
    )
    head = f'{{"kind": {json.dumps(layer.kind)}, "size": {layer.size}, "units": [\n'
    return head + ",\n".join(rows) + "\n]}\n"


def _json_row(weights: NDArray[np.float32]) -> str:
    if weights.ndim > 1:  # pixels of several colours
        return f"[{', '.join(map(_json_row, weights))}]"
    return f"[{', '.join(np.where(np.isfinite(weights), weights.astype(str), 'null'))}]"


def _colour_bar(
    image: AxesImage, axes: Axes, ticks: dict[float, str] | None = None, extend: str = "neither"
) -> None:
    bar = axes.figure.colorbar(image, cax=axes, extend=extend)
    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.outline.set_visible(False)
    axes.tick_params(length=2, pad=2, labelsize=9)


def _width(names: Iterable[str]) -> float:
    """Inches that the longest name takes at 10 points."""
    return max(map(text_width, names))


def _enlarged(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Images of at least about 28 pixels, and the side of a square that holds one of them."""
    side = max(images.shape[1:3])
    times = max(1, 28 // side)
    return images.repeat(times, 1).repeat(times, 2), side * times


def _in_colours(weights: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Weights (..., 3) as colours in [0, 1]: 0 is a middle grey; what is not a number is white."""
    return np.where(np.isnan(weights), 1, np.clip(0.5 + weights / (2 * scale), 0, 1))


def _names(predicted: PredictedClasses) -> list[str]:
    """The class names, and the numbers of further outputs that the network predicted."""
    known = len(predicted.names)
    classes = max(known, int(predicted.predictions.max(initial=0)) + 1)
    return [*predicted.names, *map(str, range(known, classes))]


def _class_rows(
    predicted: PredictedClasses, names: Sequence[str]
) -> list[tuple[str, int, int, float, float, float]]:
    """For each class: name, examples, correct ones, accuracy, and both ends of its interval.

    The last three are NaN for a class without examples.
    """
    rows = []
    counts = confusion(predicted, len(names))
    for name, n, hits in zip(
        names, counts.sum(axis=1).tolist(), counts.diagonal().tolist(), strict=True
    ):
        low, high = wilson_interval(hits, n) if n else (math.nan, math.nan)
        rows.append((name, n, hits, hits / n if n else math.nan, low, high))
    return rows
