"""Learning curves of several configurations in one picture, with a band for several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import BadRequest
from harness.figures.style import (
    CURVE_COLOURS,
    WIDE,
    cut_text,
    headed_figure,
    heading_height,
    image_file,
    styled,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

DASHES = ("-", "--", "-.", ":")

MOST_CURVES = len(CURVE_COLOURS)
"""Curves that one picture shows; readers could not tell more of them apart."""

MUCH_LARGER = 20
"""Losses that differ by more than this factor go on a logarithmic axis."""


@dataclass(frozen=True)
class Curve:
    """The learning curves of one configuration.

    Attributes:
        n: number of seeds.
        points: by metric: epoch, mean over the seeds, and their standard deviation (None for one).
    """

    label: str
    n: int
    points: dict[str, list[tuple[int, float, float | None]]]

    @property
    def entry(self) -> str:
        """The curve's entry in the legend; a long label is cut."""
        seeds = f" (n = {self.n})"
        return cut_text(self.label, WIDE / 2 - 0.6 - text_width(seeds, 9), 9) + seeds


@styled()
def draw_comparison(curves: Sequence[Curve], title: str, subtitle: str, kind: str) -> bytes:
    """A picture of at most `MOST_CURVES` curves, with one panel for each quantity.

    The quantity is the last part of a metric's name: `validation/loss` and `test/loss` share a
    panel. A line is the mean over the seeds, the band around it one standard deviation.

    Args:
        kind: of the file: `png`, `svg` or `pdf`.

    Raises:
        BadRequest: no curve has a point.
    """
    shown = [curve for curve in curves if any(curve.points.values())]
    if not shown:
        raise BadRequest("curves: none of these runs was evaluated after an epoch.")
    panels: dict[str, set[str]] = {}
    for curve in shown:
        for metric in (metric for metric, points in curve.points.items() if points):
            panels.setdefault(metric.rpartition("/")[2], set()).add(metric)
    several = any(curve.n > 1 for curve in shown)
    words = "mean over seeds, band: ± 1 standard deviation" if several else "n = 1 seed each"
    lines = [subtitle, words]
    columns = min(len(panels), 2)
    rows, legend_rows = -(-len(panels) // columns), -(-len(shown) // 2)
    height = heading_height(lines) + 3.1 * rows + 0.1 + 0.2 * legend_rows
    figure = headed_figure(WIDE, height, title, lines, arranged=True)
    handles: dict[int, Line2D] = {}
    for number, (quantity, metrics) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for index, curve in enumerate(shown):
            for metric in sorted(metrics & curve.points.keys()):
                handles[index] = _draw_curve(axes, curve.points[metric], index)
        low, high = axes.dataLim.intervaly
        if quantity == "loss" and 0 < MUCH_LARGER * low < high:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set(xlabel="epoch", ylabel=cut_text(" and ".join(sorted(metrics)), 3.1, 10))
        axes.locator_params("x", integer=True)
    figure.legend(
        [handles[index] for index in sorted(handles)],
        [shown[index].entry for index in sorted(handles)],
        loc="outside lower left",
        ncols=2,
    )
    return image_file(figure, kind)


def _draw_curve(
    axes: Axes, points: Sequence[tuple[int, float, float | None]], index: int
) -> Line2D:
    colour = CURVE_COLOURS[index]
    (line,) = axes.plot(
        [epoch for epoch, _, _ in points],
        [mean for _, mean, _ in points],
        color=colour,
        linestyle=DASHES[index % len(DASHES)],
        marker="o" if len(points) < 3 else None,
    )
    spread = [(epoch, mean - std, mean + std) for epoch, mean, std in points if std is not None]
    if spread:
        epochs, low, high = zip(*spread, strict=True)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    return line
