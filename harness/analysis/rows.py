"""Rows of a comparison: runs that differ only by their seed make one, with n, mean and spread."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.query import judged_on
from harness.base.formatting import harmless
from harness.base.metric_names import Best
from harness.base.statistics import Summary, summarize
from harness.tracking.frames import run_columns
from harness.tracking.schema import ENDED, StoredRun

SOURCE = "tags.harness.experiment_sha256"
"""SHA-256 of the file that defines the experiment."""


@dataclass(frozen=True)
class Row:
    """Runs that differ only by their seed.

    Attributes:
        runs: one for each seed, by seed.
        repeats: runs whose seed a later run in the row has too; they count nowhere.
    """

    runs: tuple[StoredRun, ...]
    repeats: tuple[StoredRun, ...] = ()

    @property
    def n(self) -> int:
        """How many runs the row's numbers rest on."""
        return len(self.runs)

    @property
    def latest(self) -> StoredRun:
        """The run that began last."""
        return max(self.runs, key=lambda run: run.start)

    @functools.cached_property
    def label(self) -> str:
        """What the runs are called, without their seed."""
        name = harmless(self.latest.name)
        if not self.runs[0].is_ours:
            return name
        return re.sub(r"(^| )seed=\d+\b", "", name).strip() or self.runs[0].experiment

    @property
    def is_named(self) -> bool:
        """Whether the label is the user's own, and says what the fields do not."""
        first = self.label.partition(" ")[0]
        return "=" not in first and first != self.runs[0].experiment

    @property
    def short_id(self) -> str:
        """The first letters of the run's id, or of the group's if all runs are in one group."""
        parents = {run.parent for run in self.runs}
        if {run.kind for run in self.runs} == {"run"} and len(parents) == 1 and None not in parents:
            return str(parents.pop())[:8]
        return self.latest.run_id[:8]

    @property
    def objective(self) -> str | None:
        """The metric that judges the runs; see `StoredRun.objective`."""
        return self.runs[0].objective

    def best_of(self, column: str) -> Best | None:
        """Whether the highest or the lowest value of a metric, or of its column, is best."""
        group, _, metric = column.partition(".")
        return self.runs[0].best_of(metric if group in ("metrics", "best") else column)

    @property
    def judged(self) -> list[str]:
        """The metrics on the examples that judge the runs: the objective first, the loss last."""
        if not self.objective:
            return []
        part, _, _ = self.objective.partition("/")
        names = (f"{part}/{name}" for name in self.runs[0].directions)
        recorded = [name for name in names if name in self.runs[0].metrics]
        return list(dict.fromkeys([self.objective, *recorded]))

    def holds(self, run_ids: set[str]) -> bool:
        """Whether one of these runs is in the row."""
        return any(run.run_id in run_ids for run in (*self.runs, *self.repeats))

    def by_seed(self, metric: str) -> dict[int, float]:
        """The last value of a metric, by seed."""
        values = ((run.seed, _value(run, metric)) for run in self.runs)
        return {seed: value for seed, value in values if seed is not None and value is not None}

    def mean(self, metric: str) -> float | None:
        """The mean of the last values of a metric; None if a run lacks it."""
        return _mean([_value(run, metric) for run in self.runs])

    def summary(self, metric: str) -> Summary | None:
        """Mean and spread of the last values of a metric; None if a run lacks it."""
        values = [_value(run, metric) for run in self.runs]
        known = [value for value in values if value is not None]
        return summarize(known) if len(known) == len(values) else None

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The row by column: those of `run_columns`, and a few of its own.

        Metrics and seconds are means, None if a run lacks one. If runs differ otherwise, a column
        holds all their values as text.
        """
        columns = [run_columns(run) for run in self.runs]
        found: dict[str, Any] = {
            "row": self.short_id,
            "name": self.label,
            "n": self.n,
            "seeds": " ".join(str(run.seed) for run in self.runs if run.seed is not None),
            "examples": judged_on(self.runs[0]),
            "commit": _shared([run.commit for run in self.runs]),
        }
        for column in dict.fromkeys(name for values in columns for name in values):
            values: list[Any] = [run.get(column) for run in columns]
            if column == "seconds" or column.startswith(("metrics.", "best.")):
                found[column] = _mean(values)
            elif column == "start_time":
                found[column] = max(values)
            elif column == "outcome":
                found[column] = _counted(values)
            elif column not in ("name", "seed", "params.seed"):
                found[column] = _shared(values)
        return found

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Everything about the row: `values`, with the spread of metrics that have a direction.

        That is `std.NAME`, and the ends of the 95% interval, `low.NAME` and `high.NAME`.
        """
        record = dict(self.values)
        for column in self.values:
            group, _, metric = column.partition(".")
            if group == "metrics" and self.best_of(metric):
                summary = self.summary(metric)
                for name in ("std", "low", "high"):
                    known = summary and summary.n > 1
                    record[f"{name}.{metric}"] = getattr(summary, name) if known else None
        return record


def rows_of(runs: Sequence[StoredRun]) -> list[Row]:
    """The rows that runs make; the newest runs come first.

    A row holds finished runs of the same experiment, by the same file, with the same parameters
    except the seed, on the same examples, device and number of threads. Trials of a study, runs
    that have not finished, and runs that the harness did not record have a row each.
    """
    together: dict[Any, list[StoredRun]] = {}
    for run in runs:
        alone = run.kind in ("trial", "") or run.outcome not in ENDED
        together.setdefault(run.run_id if alone else _configuration(run), []).append(run)
    found = []
    for members in together.values():
        latest: dict[Any, StoredRun] = {}
        for run in members:
            latest.setdefault(run.seed, run)
        kept = sorted(latest.values(), key=lambda run: run.seed or 0)
        ids = {run.run_id for run in kept}
        found.append(Row(tuple(kept), tuple(run for run in members if run.run_id not in ids)))
    return found


def ordered_rows(found: Sequence[Row], column: str | None, reverse: bool) -> list[Row]:
    """Rows by a column, or else by their objective: the best, the latest, or the smallest first.

    Rows without a value come last, either way. Text and numbers, and different objectives, are not
    mixed.
    """

    def value(row: Row) -> Any:
        if column:
            return row.record.get(column)
        return row.objective and row.mean(row.objective)

    alike: dict[tuple[bool, str], list[tuple[Any, Row]]] = {}
    unknown = []
    for row in found:
        if (known := value(row)) is None:
            unknown.append(row)
        else:
            name = column or str(row.objective)
            alike.setdefault((isinstance(known, str), name), []).append((known, row))
    ordered = []
    for (_, name), several in sorted(alike.items(), reverse=reverse):
        highest = name == "start_time" or any(row.best_of(name) == "max" for _, row in several)
        several.sort(key=lambda pair: pair[0], reverse=highest != reverse)
        ordered += [row for _, row in several]
    return [*ordered, *unknown]


def _configuration(run: StoredRun) -> tuple[Any, ...]:
    """What two runs must share to differ only by their seed."""
    names = ("device", "device_name", "threads", "experiment_sha256", "code")
    parameters = (
        # True is not 1, but 1 is 1.0.
        (name, isinstance(value, bool), str(value) if isinstance(value, list | dict) else value)
        for name, value in sorted(run.parameters.items())
        if name != "seed"
    )
    return (run.kind, run.experiment, *map(run.tag, names), *sorted(run.data.items()), *parameters)


def _value(run: StoredRun, metric: str) -> float | None:
    """The last value of a metric; None for NaN, as if it were not recorded."""
    value = run.metrics.get(metric)
    return None if value is None or value != value else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _shared(values: Sequence[Any]) -> Any:
    """The value that all have, or else all values as text."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else " ".join(map(str, distinct))


def _counted(outcomes: Sequence[str | None]) -> str | None:
    """The outcome that all have, or else how many have each."""
    counts = Counter(outcomes)
    if len(counts) == 1:
        return outcomes[0]
    return ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
