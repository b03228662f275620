"""Learning curves of several configurations in one picture, with a band for several seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadRequest
from harness.figures.run_figures import DPI, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#767676")
"""Okabe and Ito's, which the colour-blind tell apart, and grey."""

DASHES = ("-", "--", "-.", ":")

MOST_CURVES = len(COLOURS)
"""Curves that one picture can show; more of them could not be told apart."""

MUCH_LARGER = 20
"""Losses that differ by more than this factor go on a logarithmic axis."""

WIDTH = 9.0
"""Inches."""


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


def draw_comparison(curves: Sequence[Curve], title: str, subtitle: str, kind: str) -> bytes:
    """A picture of curves, one panel for each quantity, the last part of a metric's name.

    Args:
        kind: of the file: `png`, `svg` or `pdf`.

    Raises:
        BadRequest: no curve has a point.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [curve for curve in curves if any(curve.points.values())][:MOST_CURVES]
    if not shown:
        raise BadRequest("curves: none of these runs was evaluated after an epoch.")
    bands = any(curve.n > 1 for curve in shown)
    with matplotlib.rc_context({**STYLE, "axes.grid": True}):
        key = 0.26 * -(-len(shown) // 2)
        height = 4.2 + key
        figure = Figure((WIDTH, height), dpi=DPI)
        figure.text(0.015, 1 - 0.3 / height, title, fontsize=14, fontweight="bold")
        words = "mean over seeds, band: ± 1 standard deviation" if bands else "n = 1 seed each"
        figure.text(0.015, 1 - 0.55 / height, f"{subtitle}; {words}", color="#595959")
        quantities = dict.fromkeys(m.rpartition("/")[2] for curve in shown for m in curve.points)
        for place, quantity in enumerate(quantities, 1):
            axes = figure.add_subplot(1, len(quantities), place)
            for number, curve in enumerate(shown):
                for metric, points in curve.points.items():
                    if metric.endswith(quantity) and points:
                        _draw(axes, points, number, f"{curve.label} (n = {curve.n})")
            low, high = axes.dataLim.intervaly
            if quantity == "loss" and 0 < MUCH_LARGER * low < high:
                axes.set_yscale("log")
            metrics = {m for curve in shown for m in curve.points if m.endswith(quantity)}
            axes.set(xlabel="epoch", ylabel=" and ".join(sorted(metrics)))
            axes.locator_params("x", integer=True)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower left", ncols=2, bbox_to_anchor=(0.01, 0.0))
        figure.subplots_adjust(
            left=0.08, right=0.985, top=1 - 0.75 / height, bottom=(0.65 + key) / height, wspace=0.2
        )
        file = io.BytesIO()
        figure.savefig(file, format=kind)
    return file.getvalue()


def _draw(
    axes: Axes, points: Sequence[tuple[int, float, float | None]], number: int, label: str
) -> None:
    style: dict[str, Any] = {"color": COLOURS[number], "linestyle": DASHES[number % len(DASHES)]}
    epochs, means, _ = zip(*points, strict=True)
    axes.plot(epochs, means, label=label, marker="o" if len(points) < 3 else None, **style)
    spread = [(epoch, mean - std, mean + std) for epoch, mean, std in points if std is not None]
    if spread:
        epochs, low, high = zip(*spread, strict=True)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
