"""Figures of a finished run, each with its numbers beside it: drawn from plain data, without torch.

They are made to be read as thumbnails: none is wider than `WIDTH`, so that 10-point letters are
still 8 pixels high at 300 pixels. Lines and markers wear colours of Okabe and Ito, which the
colour-blind tell apart; matrices wear cividis, weights a diverging map whose white is zero.

Nothing here touches pyplot, whose figures live until somebody closes them.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.base.formatting import csv_text
from harness.base.inspection import FirstLayer, Inspection, Mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

History = Sequence[tuple[int, dict[str, float]]]
"""Epochs, counted from 1, each with its metrics."""

WIDTH = 5.0
"""Width of every figure, in inches."""

DPI = 160

MARGIN = 0.12
"""Inches left free at the edges of a figure."""

HEADING = 0.86
"""Inches that the three lines above a figure take."""

LETTER = 0.62
"""Mean width of DejaVu Sans's letters, on the generous side, in parts of the font's size."""

SETS = {"train": "#D55E00", "validation": "#009E73", "test": "#0072B2"}
"""The sets of images that have metrics: vermillion, bluish green and blue."""

PREDICTED, TRUE, GREY = "#B34700", "#0072B2", "#595959"
"""Colours of words; vermillion is darkened until small letters stand out from white."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "white",
    "axes.grid": False,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "image.interpolation": "nearest",
    "legend.fontsize": 10,
    "legend.frameon": False,
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    # A dollar sign in a run's name is a dollar sign.
    "text.parse_math": False,
    "text.color": "black",
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "xtick.labelsize": 10,
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
    "ytick.labelsize": 10,
}
"""Settings of Matplotlib's, so that a user's `matplotlibrc` does not change what a run records."""

Z95 = statistics.NormalDist().inv_cdf(0.975)
"""Standard deviations either side of the mean that hold 95% of a normal distribution."""


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def draw(
    run_title: str,
    dataset: str,
    class_names: Sequence[str],
    history: History,
    inspection: Inspection,
) -> dict[str, Figure]:
    """All figures of a run, by file name; without weights where the first layer's are no images.

    Every figure says above itself what it shows, of which run, and on how many images of which
    data: those of the inspection, and the one seed that a run has.

    Args:
        run_title: what the run is called: `baseline lr=0.05`.
        class_names: by label; a network's outputs beyond them are called by their numbers.
    """
    n = len(inspection.labels)
    images = f"{inspection.evaluated_on} image{'' if n == 1 else 's'}"
    title = f"{run_title}\n{dataset}, n = {n:,} {images}, 1 seed"
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


@_styled()
def png(figure: Figure) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def confusion(inspection: Inspection, classes: int) -> NDArray[np.int64]:
    """How many images of each class (row) were taken for each class (column), (c, c)."""
    cells = inspection.labels * classes + inspection.predictions
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share, `hits` of n > 0, both ends in [0, 1].

    Unlike the share ± 1.96 standard errors it never leaves [0, 1], and has a width even where all
    or none hit (Wilson, Probable inference, the law of succession, and statistical inference,
    1927).
    """
    share, square = hits / n, Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # Rounding must not leave a share of 0 or 1 outside its own interval.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


@_styled()
def learning_curves(history: History, title: str) -> Figure:
    """Loss and accuracy by epoch, side by side, of every set of images that has them.

    What is not finite is left out, and so is a set in epochs that did not look at it.

    Args:
        title: two lines: the run, and the data.
    """
    page = _Page(HEADING + 2.52, "Learning curves", title)
    drawn: set[str] = set()
    for column, (quantity, label, scale) in enumerate(
        (("loss", "Loss", 1), ("accuracy", "Accuracy, %", 100))
    ):
        axes = page.axes(0.5 + 2.46 * column, HEADING + 0.22, 1.9, 1.6)
        axes.set_title(label, fontweight="bold")
        axes.set_xlabel("epoch")
        axes.grid(True, axis="y")
        axes.locator_params("x", integer=True, nbins=5, min_n_ticks=1)
        axes.locator_params("y", nbins=5)
        # Losses of any size: a power of ten above the axis, rather than numbers off the page.
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
        for name, colour in SETS.items():
            points = [
                (epoch, metrics[key] * scale)
                for epoch, metrics in history
                if (key := f"{name}/{quantity}") in metrics and math.isfinite(metrics[key])
            ]
            if points:
                drawn.add(name)
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    label=name,
                    linewidth=1.8,
                    linestyle="--" if name == "train" else "-",
                    marker=("s" if name == "train" else "o") if len(points) <= 15 else None,
                    markersize=4,
                )
        if len(history) == 1:
            axes.set_xlim(history[0][0] - 0.5, history[0][0] + 0.5)
        if not axes.lines:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "none", ha="center", color=GREY, transform=axes.transAxes)
        elif quantity == "accuracy":
            axes.legend(loc="lower right", handlelength=2.2, borderpad=0.2, labelspacing=0.3)
    notes = ["train: mean over the epoch's updates"] if "train" in drawn else []
    notes += [f"{name}: after the epoch" for name in SETS if name in drawn - {"train"}]
    page.write(MARGIN, page.height - 0.1, "; ".join(notes), fontsize=8, color=GREY)
    return page.figure


def learning_curves_table(history: History) -> str:
    """CSV: an epoch a row; losses are means over images, accuracies fractions."""
    keys = [
        key
        for name in SETS
        for quantity in ("loss", "accuracy")
        if any((key := f"{name}/{quantity}") in metrics for _, metrics in history)
    ]
    rows = ([epoch, *(metrics.get(key, "") for key in keys)] for epoch, metrics in history)
    return csv_text(["epoch", *keys], rows)


@_styled()
def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Counts in a grid: a true class a row, a predicted class a column, coloured by row shares.

    Args:
        counts: (c, c), from `confusion`.
        names: c names.
        title: two lines: the run, and the data.
    """
    from matplotlib.colors import PowerNorm

    classes, turned = len(names), max(map(len, names)) > 2
    left, top = 0.3 + _width(names), HEADING + 0.1
    below = 0.22 + _width(names) * math.sqrt(0.5) if turned else 0.45
    side = WIDTH - left - 0.78
    page = _Page(top + side + below, "Confusion matrix", title)
    axes = page.axes(left, top, side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # On a square-root scale a class that is mistaken once in a hundred times is seen to be so.
    norm = PowerNorm(0.5, 0, 1)
    image = axes.imshow(shares, cmap="cividis", norm=norm, aspect="auto")
    points = min(10.0, side / classes * 72 / (0.68 * len(str(counts.max()))))
    for (row, column), count in np.ndenumerate(counts):
        colour = "black" if norm(shares[row, column]) > 0.5 else "white" if count else "#8A93A8"
        axes.text(
            column,
            row,
            str(count),
            color=colour,
            fontsize=points,
            ha="center",
            va="center_baseline",
        )
    axes.set_xticks(range(classes), names)
    if turned:
        for tick_label in axes.get_xticklabels():
            tick_label.set(rotation=45, ha="right", va="center", rotation_mode="anchor")
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", color=PREDICTED, fontweight="bold")
    axes.set_ylabel("true", color=TRUE, fontweight="bold")
    bar = page.axes(left + side + 0.1, top, 0.11, side)
    _colour_bar(image, bar, {share: f"{share:.0%}" for share in (0, 0.01, 0.05, 0.2, 0.5, 1)})
    bar.set_title("of row", fontsize=9)
    return page.figure


def confusion_matrix_table(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """CSV: a true class a row, a predicted class a column."""
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    return csv_text(["true", *names], rows)


@_styled()
def class_accuracy(inspection: Inspection, names: Sequence[str], title: str) -> Figure:
    """Accuracy of each class with its 95% Wilson interval, and of all images as a line.

    The interval is about the choice of images; what another seed would change is not in it.

    Args:
        title: two lines: the run, and the data.
    """
    left, top, height = 0.15 + _width(names), HEADING + 0.25, 0.27 * len(names)
    page = _Page(top + height + 0.5, "Accuracy by class", title)
    axes = page.axes(left, top, WIDTH - left - 1.42, height)
    for row, (_, images, _, accuracy, low, high) in enumerate(_class_rows(inspection, names)):
        if images:
            axes.plot([100 * low, 100 * high], [row, row], color=TRUE, linewidth=3, alpha=0.45)
            axes.plot([100 * accuracy], [row], color=TRUE, marker="o", markersize=6)
        axes.text(
            1.05,
            row,
            f"{accuracy:.1%} of {images:,}" if images else "no images",
            transform=axes.get_yaxis_transform(),
            va="center_baseline",
        )
    overall = 100 * float((inspection.labels == inspection.predictions).mean())
    axes.axvline(overall, color=PREDICTED, linewidth=1.4, linestyle="--", zorder=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.locator_params("x", nbins=5)
    axes.set_xlabel("accuracy, %, with 95% Wilson interval")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True)
    low, high = axes.get_xlim()
    # Centred on its line, unless that stands so near an end that the words would leave the figure.
    x = min(0.85, max(0.15, (overall - low) / (high - low)))
    axes.set_title(f"all: {overall:.1f}%", color=PREDICTED, fontsize=10, x=x)
    return page.figure


def class_accuracy_table(inspection: Inspection, names: Sequence[str]) -> str:
    """CSV: a class a row; accuracy and the ends of its 95% Wilson interval are fractions."""
    header = ["class", "images", "correct", "accuracy", "low", "high"]
    return csv_text(header, _class_rows(inspection, names))


@_styled()
def confident_mistakes(mistakes: Mistakes, names: Sequence[str], title: str) -> Figure:
    """The surest wrong predictions: confidence, image, the class predicted, the true class.

    Args:
        names: by label.
        title: two lines: the run, and the data.
    """
    heading, columns, k = "Most confident mistakes", 6, len(mistakes.images)
    if not k:
        return _Page(HEADING + 0.2, heading, f"{title}\nnone: every prediction is right").figure
    # A tile, in pixels of the images: a line of text above the image, two lines below.
    wide, high, left, above = 38, 59, 5, 10
    rows, inch = math.ceil(k / columns), (WIDTH - MARGIN) / columns / wide
    page = _Page(HEADING + 0.24 + rows * high * inch, heading, title)
    for offset, word, colour in (
        (0.0, "confidence", GREY),
        (1.0, "predicted", PREDICTED),
        (1.9, "true", TRUE),
    ):
        page.write(MARGIN + offset, HEADING + 0.16, word, color=colour, fontweight="bold")
    axes = page.axes(MARGIN / 2, HEADING + 0.24, columns * wide * inch, rows * high * inch)
    axes.set_axis_off()
    shown = [names[label] for label in (*mistakes.labels, *mistakes.predictions)]
    points = min(10.0, 10 * wide * inch / _width(shown))
    # One mosaic, because Matplotlib takes as long for a small image as for a large one.
    mosaic = np.zeros((rows * high, columns * wide), np.uint8)
    for i, image in enumerate(mistakes.images):
        y, x = i // columns * high + above, i % columns * wide + left
        mosaic[y : y + image.shape[0], x : x + image.shape[1]] = image
        sure = float(mistakes.confidence[i])
        for line, text, colour, size in (
            (y - 5, ">99.9%" if sure > 0.9995 else f"{sure:.1%}", GREY, 9.0),
            (y + 32, names[mistakes.predictions[i]], PREDICTED, points),
            (y + 41, names[mistakes.labels[i]], TRUE, points),
        ):
            axes.text(x + 14, line, text, color=colour, fontsize=size, ha="center", va="center")
    axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=255, aspect="auto")
    return page.figure


def confident_mistakes_table(mistakes: Mistakes, names: Sequence[str]) -> str:
    """CSV: a mistake a row, the surest first; positions count from 0 in the evaluation set."""
    rows = zip(
        mistakes.positions.tolist(),
        (names[label] for label in mistakes.labels),
        (names[label] for label in mistakes.predictions),
        # The shortest digits that give the float32 back.
        map(str, mistakes.confidence),
        strict=True,
    )
    return csv_text(["position", "true", "predicted", "confidence"], rows)


@_styled()
def first_layer(layer: FirstLayer, names: Sequence[str], title: str) -> Figure:
    """The weights as images, red above zero and blue below, all on one scale.

    Args:
        names: by label, for a layer whose units are classes.
        title: two lines: the run, and the data.
    """
    m, height, width = layer.weights.shape
    what = "kernels" if layer.kind == "convolution" else "units"
    some = f"{m} of {layer.size} {what}" if m < layer.size else f"all {m} {what}"
    rows = math.ceil(m / min(8, math.ceil(math.sqrt(2 * m))))
    columns, labelled = math.ceil(m / rows), m <= 20
    # Small kernels are enlarged: the gaps between them are then narrower than a weight.
    enlarged = max(1, 28 // max(height, width))
    height, width, gap = height * enlarged, width * enlarged, 2
    high, wide = height + (9 if labelled else gap), width + gap
    inch = min((WIDTH - MARGIN - 0.8) / columns, 1.4) / wide
    page = _Page(HEADING + 0.12 + rows * high * inch, f"First layer: {some}", title)
    axes = page.axes(MARGIN, HEADING, columns * wide * inch, rows * high * inch)
    axes.set_axis_off()
    mosaic = np.full((rows * high, columns * wide), np.nan, np.float32)
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
            text = names[unit] if layer.units_are_classes else f"{what[:-1]} {unit}"
            points = min(10.0, 10 * wide * inch / _width([text]))
            axes.text((left + right) / 2, top - 4, text, fontsize=points, ha="center", va="center")
    sizes = np.abs(layer.weights[np.isfinite(layer.weights)])
    # A few far larger weights would leave all others white; the bar's arrows stand for them.
    scale = float(np.quantile(sizes, 0.995)) if sizes.any() else 1.0
    image = axes.imshow(mosaic, cmap="RdBu_r", vmin=-scale, vmax=scale, aspect="auto")
    axes.plot(*zip(*frames, strict=True), color="#B0B0B0", linewidth=0.6)
    axes.set_xlim(-0.5, columns * wide - 0.5)
    axes.set_ylim(rows * high - 0.5, -0.5)
    bar = page.axes(MARGIN + columns * wide * inch + 0.08, HEADING, 0.11, rows * high * inch)
    _colour_bar(image, bar, extend="both" if sizes.max(initial=0) > scale else "neither")
    return page.figure


def first_layer_table(layer: FirstLayer) -> str:
    """JSON: the units, the largest norm first, each with its rows of weights.

    A weight that is not finite is null, because JSON has no word for it.
    """
    rows = (
        # The shortest digits that give each float32 back.
        f'{{"unit": {unit}, "weights": [{", ".join(map(_json_row, weights))}]}}'
        for unit, weights in zip(layer.units, layer.weights, strict=True)
    )
    head = f'{{"kind": {json.dumps(layer.kind)}, "size": {layer.size}, "units": [\n'
    return head + ",\n".join(rows) + "\n]}\n"


def _json_row(weights: NDArray[np.float32]) -> str:
    return f"[{', '.join(np.where(np.isfinite(weights), weights.astype(str), 'null'))}]"


class _Page:
    """A figure with a heading, on which places are inches from the upper left corner."""

    def __init__(self, height: float, heading: str, title: str) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure = Figure((WIDTH, height), dpi=DPI)
        self.write(MARGIN, 0.29, heading, fontsize=14, fontweight="bold")
        letters = int((WIDTH - 2 * MARGIN) / _width("x"))
        for line, text in enumerate(title.split("\n")):
            cut = text if len(text) <= letters else text[: letters - 1] + "…"
            self.write(MARGIN, 0.51 + 0.2 * line, cut, color=GREY)

    def write(self, left: float, base: float, text: str, **style: Any) -> None:
        self.figure.text(left / WIDTH, 1 - base / self.height, text, **style)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height)
        )


def _colour_bar(
    image: AxesImage, axes: Axes, ticks: dict[float, str] | None = None, extend: str = "neither"
) -> None:
    bar = axes.figure.colorbar(image, cax=axes, extend=extend)
    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.outline.set_visible(False)
    axes.tick_params(length=2, pad=2, labelsize=9)


def _width(names: Iterable[str]) -> float:
    """Inches that the longest of some names takes in letters of 10 points."""
    return max(map(len, names)) * 10 * LETTER / 72


def _names(class_names: Sequence[str], inspection: Inspection) -> list[str]:
    """The class names, and numbers for what a network with more outputs has predicted besides."""
    classes = max(len(class_names), int(inspection.predictions.max(initial=0)) + 1)
    return [*class_names, *map(str, range(len(class_names), classes))]


def _class_rows(
    inspection: Inspection, names: Sequence[str]
) -> list[tuple[str, int, int, float, float, float]]:
    """Of each class: name, images, correct ones, accuracy, both ends of its interval.

    The last three are NaN for a class without images.
    """
    rows = []
    counts = confusion(inspection, len(names))
    for name, n, hits in zip(
        names, counts.sum(axis=1).tolist(), counts.diagonal().tolist(), strict=True
    ):
        low, high = wilson_interval(hits, n) if n else (math.nan, math.nan)
        rows.append((name, n, hits, hits / n if n else math.nan, low, high))
    return rows
