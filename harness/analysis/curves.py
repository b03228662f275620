"""Learning curves of the rows of a comparison, as plain data for a figure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.query import images
from harness.analysis.rows import Row
from harness.figures.comparison_figures import Curve
from harness.tracking import frames


def curves(rows: Sequence[Row], labels: Sequence[str]) -> list[Curve]:
    """The accuracy and loss of each row by epoch: mean and standard deviation over its seeds."""
    shown = [
        (row, label, str(row.objective))
        for row, label in zip(rows, labels, strict=False)
        if row.objective
    ]
    if not shown:
        return []
    history = frames.epochs(run_ids=[run["run_id"] for row, *_ in shown for run in row.runs])
    found = []
    for row, label, objective in shown:
        of_row = history[history["run_id"].isin([run["run_id"] for run in row.runs])]
        points = {}
        for metric in (objective, objective.replace("accuracy", "loss")):
            by_epoch = of_row[of_row["metric"] == metric].groupby("epoch")["value"]
            points[metric] = [
                (int(epoch), float(values.mean()), float(values.std()) if row.n > 1 else None)
                for epoch, values in by_epoch
            ]
        found.append(Curve(label, row.n, points))
    return found


def seen_images(rows: Sequence[Row]) -> str:
    """The images that the rows were evaluated on, in words."""
    return "; ".join(dict.fromkeys(images(row.runs[0]) for row in rows if row.objective))
