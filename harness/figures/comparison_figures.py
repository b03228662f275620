"""Learning curves of several rows in one picture, with a band where a row has several seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.query import images
from harness.analysis.rows import Row
from harness.base.errors import BadRequest
from harness.figures.run_figures import DPI, STYLE
from harness.tracking import frames

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#767676")
"""Okabe and Ito's, which the colour-blind tell apart, and grey."""

DASHES = ("-", "--", "-.", ":")

MOST_CURVES = len(COLOURS)
"""Rows that one picture can show; more of them could not be told apart."""

MUCH_LARGER = 20
"""A loss this many times another would leave no room for what differs among the small ones."""

WIDTH = 9.0
"""Inches."""


def draw(rows: Sequence[Row], labels: Sequence[str], title: str, kind: str) -> bytes:
    """A picture of the first `MOST_CURVES` rows' accuracy and loss, epoch by epoch.

    A line is the mean over a row's seeds, the band around it one standard deviation.

    Args:
        labels: what tells each row from the others.
        kind: of the file: `png`, `svg` or `pdf`.

    Raises:
        BadRequest: none of the rows has an epoch.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.objective][:MOST_CURVES]
    if not shown:
        raise BadRequest("curves: none of these runs was judged after an epoch.")
    metrics = sorted({str(row.objective) for row in shown})
    metrics += [metric.replace("accuracy", "loss") for metric in metrics]
    history = frames.epochs(run_ids=[run["run_id"] for row in shown for run in row.runs])
    seen = list(dict.fromkeys(images(row.runs[0]) for row in shown))
    some = f"the first {len(shown)} of {len(rows)} rows, " if len(shown) < len(rows) else ""
    bands = any(row.n > 1 for row in shown)
    with matplotlib.rc_context({**STYLE, "axes.grid": True}):
        key = 0.26 * -(-len(shown) // 2)
        height = 4.2 + key
        figure = Figure((WIDTH, height), dpi=DPI)
        figure.text(0.015, 1 - 0.3 / height, title, fontsize=14, fontweight="bold")
        words = "mean over seeds, band: ± 1 standard deviation" if bands else "n = 1 seed each"
        line = f"{some}{'; '.join(seen)}; {words}"
        figure.text(0.015, 1 - 0.55 / height, line, color="#595959")
        places = [figure.add_subplot(1, 2, number) for number in (1, 2)]
        for axes, word in zip(places, ("accuracy", "loss"), strict=True):
            for number, (row, label) in enumerate(zip(shown, labels, strict=False)):
                metric = str(row.objective).replace("accuracy", word)
                _curve(axes, row, history[history["metric"] == metric], number, label)
            if word == "loss":
                _make_room(axes)
            parts = [metric for metric in metrics if metric.endswith(word)]
            axes.set(xlabel="epoch", ylabel=" and ".join(parts))
            axes.locator_params("x", integer=True)
        handles, names = places[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower left", ncols=2, bbox_to_anchor=(0.01, 0.0))
        figure.subplots_adjust(
            left=0.08, right=0.985, top=1 - 0.75 / height, bottom=(0.65 + key) / height, wspace=0.2
        )
        file = io.BytesIO()
        figure.savefig(file, format=kind)
    return file.getvalue()


def _make_room(axes: Axes) -> None:
    """Losses of which some are many times the others go on a logarithmic axis."""
    low, high = axes.dataLim.intervaly
    if 0 < MUCH_LARGER * low < high:
        axes.set_yscale("log")


def _curve(axes: Axes, row: Row, history: pd.DataFrame, number: int, label: str) -> None:
    of_row = history[history["run_id"].isin([run["run_id"] for run in row.runs])]
    if of_row.empty:
        return
    by_epoch = of_row.groupby("epoch")["value"]
    mean, std = by_epoch.mean(), by_epoch.std()
    style: dict[str, Any] = {"color": COLOURS[number], "linestyle": DASHES[number % len(DASHES)]}
    few = "o" if len(mean) < 3 else None
    axes.plot(mean.index, mean, label=f"{label} (n = {row.n})", marker=few, **style)
    if row.n > 1:
        axes.fill_between(
            mean.index, mean - std, mean + std, color=style["color"], alpha=0.2, linewidth=0
        )
