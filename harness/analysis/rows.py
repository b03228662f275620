"""Rows of a comparison: runs that differ by their seed alone are one, with n, mean and spread."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.query import Run, images
from harness.base.statistics import Summary, summarize
from harness.tracking.reader import best_of

FINISHED = ("completed", "diverged")
"""Outcomes of runs that can be averaged over: they had all the epochs that they will ever have."""

OBJECTIVES = ("test/accuracy", "validation/accuracy")
"""What runs are judged by: the first of these that they have."""

SETTING = ("kind", "experiment", "device", "device_name", "threads")
SOURCE = "tags.harness.experiment_sha256"
"""SHA-256 of the file that defines the experiment."""


@dataclass(frozen=True)
class Row:
    """Runs that differ by seed alone.

    Attributes:
        runs: one for each seed, by seed.
        repeats: runs with a seed that a later one in the row has, too; they count nowhere.
    """

    runs: tuple[Run, ...]
    repeats: tuple[Run, ...] = ()

    @property
    def n(self) -> int:
        """How many runs the row's numbers stand on."""
        return len(self.runs)

    @property
    def label(self) -> str:
        """What the runs are called, without their seed."""
        name = str(max(self.runs, key=lambda run: run["start_time"])["name"])
        if not self.runs[0]["kind"]:
            return name
        return re.sub(r"(^| )seed=\d+\b", "", name).strip() or str(self.runs[0]["experiment"])

    @property
    def is_named(self) -> bool:
        """Whether the label is a user's own, and says what the fields do not."""
        first = self.label.partition(" ")[0]
        return "=" not in first and first != self.runs[0]["experiment"]

    @property
    def short_id(self) -> str:
        """The first letters of the run's id, or of the group's where all are in one."""
        parents = {run["parent"] for run in self.runs}
        kinds = {run["kind"] for run in self.runs}
        if kinds == {"run"} and len(parents) == 1 and None not in parents:
            return str(parents.pop())[:8]
        return str(max(self.runs, key=lambda run: run["start_time"])["run_id"])[:8]

    @property
    def objective(self) -> str | None:
        """The metric that the runs are judged by."""
        run = self.runs[0]
        return next((m for m in OBJECTIVES if run.get(f"metrics.{m}") is not None), None)

    def holds(self, run_ids: set[str]) -> bool:
        """Whether one of these runs is in the row."""
        return any(run["run_id"] in run_ids for run in (*self.runs, *self.repeats))

    def by_seed(self, metric: str) -> dict[int, float]:
        """The last value of a metric, by seed."""
        return {
            run["seed"]: run[f"metrics.{metric}"]
            for run in self.runs
            if run["seed"] is not None and run.get(f"metrics.{metric}") is not None
        }

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Everything about the row, by column: those of `harness.runs`, and a few of its own.

        Metrics and seconds are means, None where a run lacks one; losses and accuracies have a
        spread beside them, as `std.NAME` and the ends of the 95% interval, `low.NAME` and
        `high.NAME`. What else differs between the runs is there with all its values.
        """
        seeds = [run["seed"] for run in self.runs if run["seed"] is not None]
        record: dict[str, Any] = {
            "row": self.short_id,
            "name": self.label,
            "n": self.n,
            "seeds": " ".join(map(str, seeds)),
            "images": images(self.runs[0]),
        }
        for column in self.runs[0]:
            values = [run[column] for run in self.runs]
            if column == "seconds" or column.startswith(("metrics.", "best.")):
                record[column] = None if None in values else sum(values) / len(values)
            elif column == "start_time":
                record[column] = max(values)
            elif column == "outcome":
                counts = Counter(map(str, values))
                record[column] = (
                    str(values[0])
                    if len(counts) == 1
                    else ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
                )
            elif column not in ("name", "seed", "params.seed"):
                distinct = list(dict.fromkeys(values))
                record[column] = distinct[0] if len(distinct) == 1 else " ".join(map(str, distinct))
        for column in [name for name in record if name.startswith("metrics.")]:
            metric = column.removeprefix("metrics.")
            if best_of(metric):
                summary = self.summary(metric)
                for name in ("std", "low", "high"):
                    known = summary and summary.n > 1
                    record[f"{name}.{metric}"] = getattr(summary, name) if known else None
        return record

    def summary(self, metric: str) -> Summary | None:
        """The last values of a metric; None where a run lacks it."""
        values: list[Any] = [run.get(f"metrics.{metric}") for run in self.runs]
        return None if None in values else summarize(values)


def rows(runs: Sequence[Run]) -> list[Row]:
    """The rows that runs make, which are given with the newest first.

    One row are finished runs of the same experiment, by the same file, with the same parameters
    but their seed, on the same images, device and number of threads. Trials of a study stand each
    for itself, and so do runs that have not come to their end.
    """
    together: dict[Any, list[Run]] = {}
    names = list(runs[0]) if runs else []
    alike = [*SETTING, SOURCE] + [
        name for name in names if name.startswith(("params.", "data.")) and name != "params.seed"
    ]
    for run in runs:
        alone = run["kind"] in ("trial", None) or run["outcome"] not in FINISHED
        key = run["run_id"] if alone else tuple(run.get(name) for name in alike)
        together.setdefault(key, []).append(run)
    found = []
    for members in together.values():
        latest: dict[Any, Run] = {}
        for run in members:
            latest.setdefault(run["seed"], run)
        kept = sorted(latest.values(), key=lambda run: run["seed"] or 0)
        ids = {run["run_id"] for run in kept}
        found.append(Row(tuple(kept), tuple(run for run in members if run["run_id"] not in ids)))
    return found


def ordered(found: Sequence[Row], column: str | None, reverse: bool) -> list[Row]:
    """Rows by a column, or by what each is judged by: the best, the latest, or the smallest first.

    Rows without a value come last, either way.
    """

    def value(row: Row) -> Any:
        if column:
            return row.record.get(column)
        return row.objective and row.record[f"metrics.{row.objective}"]

    known = [row for row in found if value(row) is not None]
    descending = best_of(column or OBJECTIVES[0]) is max or column == "start_time"
    words = any(isinstance(value(row), str) for row in known)
    known.sort(
        key=lambda row: str(value(row)) if words else value(row), reverse=descending != reverse
    )
    return [*known, *(row for row in found if value(row) is None)]
