"""Figures of a finished run, each with its numbers beside it: drawn from plain data, without torch.

Sizes are chosen for a thumbnail of 300 pixels: no figure is wider than `WIDTH` inches, so 10-point
letters are still 8 pixels high there. Lines and markers wear colours of Okabe and Ito, which the
colour-blind tell apart; matrices wear cividis, weights a diverging map whose white is zero.

Nothing here touches pyplot, whose figures live until somebody closes them.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.inspection import FirstLayer, Inspection, Mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

History = Sequence[tuple[int, dict[str, float]]]
"""Epochs, counted from 1, with their metrics."""

WIDTH = 5.0
"""Inches; a point is then 0.83 pixels of a thumbnail that is 300 pixels wide."""

DPI = 160

MARGIN = 0.12
"""Inches left free along the edges of a figure."""

SETS = {"train": "#E69F00", "validation": "#009E73", "test": "#0072B2"}
"""The sets of images that have metrics, with their colours: orange, bluish green, blue."""

PREDICTED, TRUE = "#B34700", "#0072B2"
"""Vermillion, darkened until small letters are legible on white, and blue."""

GREY = "#595959"

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titlepad": 5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GREY,
    "axes.facecolor": "white",
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "image.interpolation": "nearest",
    "legend.fontsize": 10,
    "legend.frameon": False,
    "savefig.bbox": None,
    "text.color": "black",
    # A dollar sign in a run's name is a dollar sign.
    "text.parse_math": False,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
}
"""Matplotlib's settings, so that a `matplotlibrc` of the user's does not change the figures."""

Z95 = statistics.NormalDist().inv_cdf(0.975)
"""Standard deviations that bound the middle 95% of a normal distribution."""


def draw(
    run_title: str,
    dataset: str,
    class_names: Sequence[str],
    history: History,
    inspection: Inspection,
) -> dict[str, Figure]:
    """All figures of a run, by file name; no figure of a first layer that is none of images.

    Args:
        run_title: what the run is called: `baseline lr=0.05`.
        dataset: the data set's name.
        class_names: by label.
    """
    n = len(inspection.labels)
    images = f"{n:,} {inspection.evaluated_on} image{'s' if n != 1 else ''}"
    title = f"{run_title}\n{dataset}, {images}, 1 seed"
    names = _names(class_names, inspection)
    figures = {
        "learning_curves": learning_curves(history, title),
        "confusion_matrix": confusion_matrix(confusion(inspection, len(names)), names, title),
        "class_accuracy": class_accuracy(inspection, names, title),
        "confident_mistakes": confident_mistakes(inspection.mistakes, names, title),
    }
    if inspection.first_layer:
        figures["first_layer"] = first_layer(inspection.first_layer, names, title)
    return {f"figures/{name}.png": figure for name, figure in figures.items()}


def tables(class_names: Sequence[str], history: History, inspection: Inspection) -> dict[str, str]:
    """The numbers of the figures of `draw`, by file name: CSV, and JSON for the first layer."""
    names = _names(class_names, inspection)
    texts = {
        "learning_curves.csv": learning_curves_table(history),
        "confusion_matrix.csv": confusion_matrix_table(confusion(inspection, len(names)), names),
        "class_accuracy.csv": class_accuracy_table(inspection, names),
        "confident_mistakes.csv": confident_mistakes_table(inspection.mistakes, names),
    }
    if inspection.first_layer:
        texts["first_layer.json"] = first_layer_table(inspection.first_layer)
    return {f"figures/{name}": text for name, text in texts.items()}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def confusion(inspection: Inspection, classes: int) -> NDArray[np.int64]:
    """How many images of each true class (row) were taken for each class (column): (c, c)."""
    cells = inspection.labels * classes + inspection.predictions
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share of which `hits` of n were counted; 0 and 1 for n = 0.

    Unlike the share ± 1.96 standard errors, it stays in [0, 1] and has width where all or none
    hit (Wilson, Probable inference, the law of succession, and statistical inference, 1927).
    """
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, Z95**2
    centre = share + square / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # Rounding must not push an end beyond the share itself where that is 0 or 1.
    low = min(share, max(0.0, (centre - half) / (1 + square / n)))
    return low, max(share, min(1.0, (centre + half) / (1 + square / n)))


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@_styled()
def learning_curves(history: History, title: str) -> Figure:
    """Loss and accuracy by epoch, side by side, of every set that the history knows.

    Args:
        title: the run, and below it the data.
    """
    heading = 0.85
    figure, page = _figure(heading + 2.5, "Learning curves", title)
    quantities = (("loss", "Loss", 1.0), ("accuracy", "Accuracy, %", 100.0))
    for column, (quantity, label, scale) in enumerate(quantities):
        axes = page(0.5 + 2.42 * column, heading + 0.22, 1.92, 1.62)
        axes.set_title(label, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.grid(True, axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)  # type: ignore[call-arg]
        axes.yaxis.get_major_locator().set_params(nbins=5)  # type: ignore[call-arg]
        for name, colour in SETS.items():
            points = [
                (epoch, metrics[key] * scale)
                for epoch, metrics in history
                if (key := f"{name}/{quantity}") in metrics and math.isfinite(metrics[key])
            ]
            if points:
                training = name == "train"
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    label=name,
                    linewidth=1.8,
                    linestyle="--" if training else "-",
                    marker=("s" if training else "o") if len(points) <= 12 else None,
                    markersize=4,
                )
        if column == 1 and axes.lines:
            axes.legend(loc="lower right", handlelength=2.2, borderpad=0.2, labelspacing=0.3)
    figure.text(
        MARGIN / WIDTH,
        0.03,
        "train: mean of the epoch's updates; others: after the epoch",
        fontsize=8,
        color=GREY,
    )
    return figure


def learning_curves_table(history: History) -> str:
    """CSV: an epoch a row; losses are means over images, accuracies fractions."""
    keys = [
        key
        for name in SETS
        for quantity in ("loss", "accuracy")
        if any((key := f"{name}/{quantity}") in metrics for _, metrics in history)
    ]
    rows = [[epoch, *(metrics.get(key, "") for key in keys)] for epoch, metrics in history]
    return _csv(["epoch", *keys], rows)


@_styled()
def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Counts in a grid whose rows are the true classes and whose colours are shares of the row.

    Args:
        counts: (c, c), from `confusion`.
        title: the run, and below it the data.
    """
    from matplotlib.colors import PowerNorm

    classes, longest = len(names), max(map(len, names))
    left = 0.42 + min(1.0, 0.085 * longest)
    bottom = 0.42 + min(1.0, 0.085 * longest) if longest > 2 else 0.55
    side = WIDTH - left - 0.72
    heading = 0.85
    figure, page = _figure(heading + side + bottom, "Confusion matrix", title)
    axes = page(left, heading, side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # With the root, a class confused once in a hundred times is told from one that never is.
    image = axes.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    size = min(10.0, side / classes * 72 / (0.68 * len(str(counts.max()))))
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=size,
            color="#A9A9B8" if not count else "white" if share < 0.3 else "black",
        )
    turned = longest > 2
    axes.set_xticks(
        range(classes),
        names,
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
        rotation_mode="anchor" if turned else "default",
    )
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", color=PREDICTED, fontweight="bold")
    axes.set_ylabel("true", color=TRUE, fontweight="bold")
    bar = page(WIDTH - 0.62, heading, 0.12, side)
    _colour_bar(image, bar, [0, 0.01, 0.05, 0.2, 0.5, 1], ["0%", "1%", "5%", "20%", "50%", "100%"])
    return figure


def confusion_matrix_table(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """CSV: a true class a row, a predicted class a column."""
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    return _csv(["true \\ predicted", *names], rows)


@_styled()
def class_accuracy(inspection: Inspection, names: Sequence[str], title: str) -> Figure:
    """Accuracy of each class with its 95% Wilson interval, and of all images as a line.

    Args:
        title: the run, and below it the data.
    """
    rows = _class_rows(inspection, names)
    left, height = _room_for(names), 0.26 * len(names)
    figure, page = _figure(HEADING + 0.25 + height + 0.5, "Accuracy by class", title)
    axes = page(left, HEADING + 0.25, WIDTH - left - 1.35, height)
    for row, (_, images, _, accuracy, low, high) in enumerate(rows):
        if images:
            axes.plot([100 * low, 100 * high], [row, row], color=TRUE, linewidth=2.5, alpha=0.45)
            axes.plot([100 * accuracy], [row], color=TRUE, marker="o", markersize=6)
        axes.text(
            1.05,
            row,
            f"{accuracy:.1%} of {images:,}" if images else "no images",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
        )
    overall = 100 * float((inspection.labels == inspection.predictions).mean())
    axes.axvline(overall, color=PREDICTED, linewidth=1.4, linestyle="--", zorder=0)
    axes.set_title(f"all: {overall:.1f}%", color=PREDICTED, fontsize=10, x=_inside(axes, overall))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.get_major_locator().set_params(nbins=5)  # type: ignore[call-arg]
    axes.set_xlabel("accuracy, %, with 95% Wilson interval")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    return figure


def class_accuracy_table(inspection: Inspection, names: Sequence[str]) -> str:
    """CSV: a class a row; accuracy and the ends of its 95% Wilson interval are fractions."""
    header = ["class", "images", "correct", "accuracy", "low", "high"]
    return _csv(header, _class_rows(inspection, names))


@_styled()
def confident_mistakes(mistakes: Mistakes, names: Sequence[str], title: str) -> Figure:
    """The surest wrong predictions: each image between its confidence and its two names.

    Args:
        title: the run, and below it the data.
    """
    k, columns = len(mistakes.images), 6
    name = "The surest mistakes"
    if not k:
        figure, _ = _figure(HEADING + 0.5, name, title)
        figure.text(MARGIN / WIDTH, 0.2, "None: every prediction is right.", fontsize=11)
        return figure
    # In pixels of the images: what a tile takes with its three lines of text around it.
    wide, high, above, below = 40, 57, 10, 19
    width = WIDTH - MARGIN
    height = width / (columns * wide) * math.ceil(k / columns) * high
    figure, page = _figure(HEADING + 0.22 + height, name, title)
    axes = page(MARGIN / 2, HEADING + 0.2, width, height)
    corners = [(high * (i // columns) + above, wide * (i % columns) + 6) for i in range(k)]
    mosaic = np.zeros((math.ceil(k / columns) * high, columns * wide), np.uint8)
    for image, (top, left) in zip(mistakes.images, corners, strict=True):
        mosaic[top : top + image.shape[0], left : left + image.shape[1]] = image
    axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=255, aspect="auto")
    axes.set_axis_off()
    _key(figure, axes)
    shown = {names[label] for label in (*mistakes.labels, *mistakes.predictions)}
    size = min(10.0, width / columns * 72 / (0.59 * max(map(len, shown))))
    for i, (top, left) in enumerate(corners):
        lines = (
            (top - 5, _percent(mistakes.confidence[i]), GREY, 9.0),
            (top + 28 + 5, names[mistakes.predictions[i]], PREDICTED, size),
            (top + 28 + 13, names[mistakes.labels[i]], TRUE, size),
        )
        for y, text, colour, points in lines:
            axes.text(left + 14, y, text, color=colour, fontsize=points, ha="center", va="center")
    return figure


def confident_mistakes_table(mistakes: Mistakes, names: Sequence[str]) -> str:
    """CSV: a mistake a row, the surest first; positions count from 0 in the evaluation set."""
    rows = zip(
        range(1, len(mistakes.positions) + 1),
        mistakes.positions.tolist(),
        [names[label] for label in mistakes.labels],
        [names[label] for label in mistakes.predictions],
        map(str, mistakes.confidence),
        strict=True,
    )
    return _csv(["rank", "position", "true", "predicted", "confidence"], rows)


@_styled()
def first_layer(layer: FirstLayer, names: Sequence[str], title: str) -> Figure:
    """The weights as images, all on one scale that is symmetric around zero.

    Args:
        names: of the classes, for a layer whose units are classes.
        title: the run, and below it the data.
    """
    return _figure(3, "x", title)[0]


def first_layer_table(layer: FirstLayer) -> str:
    """JSON: the units with their weights, rows of columns, in the shortest digits of float32."""
    return ""


def _key(figure: Figure, axes: Axes) -> None: ...


def _figure(height: float, name: str, title: str) -> tuple[Figure, Callable[..., Axes]]:
    """A figure with its heading, and a function that adds axes.

    Args:
        height: inches.

    Returns:
        The figure; the function takes left, top, width and height in inches from the top left.
    """
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height), dpi=DPI)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.28 / height, name, fontsize=13, fontweight="bold")
    for line, text in enumerate(title.split("\n")):
        figure.text(left, 1 - (0.5 + 0.19 * line) / height, _shortened(text), color=GREY)

    def page(left: float, top: float, width: float, tall: float) -> Axes:
        return figure.add_axes(
            (left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height)
        )

    return figure, page


def _shortened(text: str) -> str:
    """The text, cut where a line of 10-point letters would leave the figure."""
    letters = int((WIDTH - 2 * MARGIN) * 72 / (10 * 0.6))
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _percent(share: float) -> str:
    return f"{100 * math.floor(1000 * share) / 1000:.1f}%"


def _inside(axes: Axes, x: float) -> float:
    low, high = axes.get_xlim()
    return min(0.85, max(0.1, (x - low) / (high - low)))


def _room_for(names: Sequence[str]) -> float:
    return 0.2 + 0.085 * max(map(len, names))


def _colour_bar(image: AxesImage, axes: Axes, ticks: list[float], labels: list[str]) -> None: ...


def _names(class_names: Sequence[str], inspection: Inspection) -> list[str]:
    """The class names, and numbers for what a network with more outputs has predicted besides."""
    classes = max(len(class_names), int(inspection.predictions.max(initial=0)) + 1)
    return [*class_names, *map(str, range(len(class_names), classes))]


def _csv(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
