"""Learning curves of several configurations in one picture, each with a band over its seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.tracking.figures import STYLE

LINES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
"""Colours of Okabe and Ito, which colour-blind readers tell apart, each with its own marker."""


def learning_curves(curves: Mapping[str, pd.DataFrame], quantity: str, title: str) -> bytes:
    """Curves by epoch as an SVG file; the same curves give the same bytes.

    Args:
        curves: for each configuration, no more than there are `LINES`, a frame with a row an epoch
            and a column a seed. Where there are several, the mean is a line and one standard
            deviation (n - 1) either side a band.
        quantity: what the values are.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "harness"}):
        figure = Figure((6.4, 3.9 + 0.22 * len(curves)), layout="constrained")
        figure.suptitle(title, fontsize=11)
        axes = figure.add_subplot()
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for (name, values), (colour, marker) in zip(curves.items(), LINES, strict=False):
            mean, n = values.mean(axis=1), values.shape[1]
            label = f"{name} (n = {n})"
            few = len(mean) <= 20
            axes.plot(mean.index, mean, color=colour, marker=marker if few else None, label=label)
            if n > 1:
                spread = values.std(axis=1)
                low, high = mean - spread, mean + spread
                axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, lw=0)
        figure.legend(loc="outside lower left", fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
