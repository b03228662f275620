"""A comparison: the rows that are asked for, in their order, with what must be said about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis import table
from harness.analysis.differences import Difference, differences, reference_among
from harness.analysis.query import Run, data, images, named, refuse_mixed_data, select
from harness.analysis.rows import FINISHED, Row, ordered, rows
from harness.base.errors import BadRequest, nearest
from harness.base.formatting import number_of
from harness.base.statistics import FEWEST_PAIRS
from harness.cli.compare_flags import CompareSettings
from harness.tracking import frames

PARTS = {"trial": "trials", "confirm": "confirmations on the test images"}
"""Kinds of runs that have a table of their own; all others are in one."""


@dataclass(frozen=True)
class Comparison:
    """One table.

    Attributes:
        of: what is compared, in words.
        rows: in their order.
        limit: how many of them are shown; None for all.
        sorted_by: the column that gave them their order.
        compared: each row's difference from the reference; None for the reference, and for all
            rows where there is none.
    """

    of: str
    rows: tuple[Row, ...]
    limit: int | None
    sorted_by: str
    compared: tuple[Difference | None, ...]
    reference: Row | None = None

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """Everything about all rows, by column."""
        return table.records(self.rows, self.compared)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Everything about the rows that are shown."""
        return self.records[: self.limit]

    def columns(self, names: Sequence[str]) -> list[table.Column]:
        """The columns of those names, or the usual ones; with the rows that are shown."""
        # What differs between the rows differs between all of them, not among the first.
        columns = (
            table.chosen_columns(self.records, names)
            if names
            else table.usual_columns(self.rows, self.records)
        )
        return [replace(column, cells=column.cells[: self.limit]) for column in columns]

    @property
    def labels(self) -> list[str]:
        """What to call each row: its label, with its id where others are called the same."""
        labels = [row.label for row in self.rows]
        return [
            f"{row.label} ({row.short_id})" if labels.count(row.label) > 1 else row.label
            for row in self.rows
        ]

    @property
    def heading(self) -> str:
        """What is compared, how much of it, on which images and which device, in which order."""
        runs = [run for row in self.rows for run in row.runs]
        seen = sorted({words for run in runs if (words := images(run))})
        where = sorted(
            {f"{run['device_name']}, {number_of(run['threads'] or 0, 'thread')}" for run in runs}
        )
        parts = [
            f"{self.of}: {number_of(len(runs), 'run')}"
            + (f" in {number_of(len(self.rows), 'row')}" if len(runs) > len(self.rows) else ""),
            *([seen[0]] if len(seen) == 1 else []),
            *([where[0]] if len(where) == 1 and runs[0]["device_name"] else []),
            f"sorted by {self.sorted_by.removeprefix('metrics.').removeprefix('params.')}",
        ]
        return "; ".join(parts)

    @property
    def notes(self) -> list[str]:
        """What a reader should know before believing the numbers."""
        notes = []
        if more := len(self.rows) - len(self.shown):
            notes.append(f"{number_of(more, 'more row')}: raise --limit.")
        if repeats := sum(len(row.repeats) for row in self.rows):
            notes.append(
                f"{number_of(repeats, 'run')} left out: a later one has the same fields and seed."
            )
        if any(run["outcome"] not in (*FINISHED, "pruned") for r in self.rows for run in r.runs):
            notes.append("Runs that have not come to their end stand alone, with what they have.")
        if len({data(run) for row in self.rows for run in row.runs}) > 1:
            notes.append("The rows saw different images: their numbers are not comparable.")
        if self.reference:
            notes += self._about_differences()
        return notes

    def _about_differences(self) -> list[str]:
        assert self.reference
        pairs = [d.summary.n if d.summary else 0 for d in self.compared if d]
        notes = [
            f"difference: {self.reference.objective} minus that of {self.reference.short_id} "
            f"({self.reference.label}), seed by seed, with the 95% t-interval of its mean; "
            "p: two-sided, of the exact sign-flip permutation test."
        ]
        if any(n < FEWEST_PAIRS for n in pairs):
            notes.append(
                f"With fewer than {FEWEST_PAIRS} shared seeds, p cannot get below 0.05: that is "
                f"too few to tell. More: python -m harness.run NAME --repeats {FEWEST_PAIRS}"
            )
        if len(pairs) > 1:
            notes.append(f"p is not corrected for {len(pairs)} comparisons.")
        return notes


def comparisons(settings: CompareSettings) -> list[Comparison]:
    """The tables that the settings ask for; none where nothing at all is recorded.

    Raises:
        BadRequest: nothing is as asked for, or what is cannot be compared.
        RunFailed: the store cannot be read.
    """
    runs = select(settings)
    if not runs:
        if settings.chooses:
            raise BadRequest(f"There are no such runs{_asked_by(settings)}.")
        return []
    if settings.against:
        runs = _with_reference(runs, settings.against)
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(PARTS.get(run["kind"], "runs"), []).append(run)
    if not settings.mixed_data:
        for part in parts.values():
            refuse_mixed_data(part)
    # What was confirmed is the end of a study, and of its tables.
    return [
        _comparison(parts[part], part, settings)
        for part in ("runs", *PARTS.values())
        if part in parts
    ]


def _comparison(runs: Sequence[Run], part: str, settings: CompareSettings) -> Comparison:
    found = rows(runs)
    column = None
    if settings.sort:
        known = table.column_names([row.record for row in found])
        column = table.full_name(settings.sort, known)
    objectives = {row.objective for row in found if row.objective}
    if not column and not objectives:
        column = "start_time"
    found = ordered(found, column, settings.reverse)
    reference = None
    if settings.against:
        reference = reference_among(found, settings.against, _ids(runs, settings.against))
    compared = differences(found, reference) if reference else [None] * len(found)
    name = (
        settings.study
        or settings.experiment
        or ", ".join(sorted({str(run["experiment"] or run["mlflow_experiment"]) for run in runs}))
    )
    return Comparison(
        of=name if part == "runs" else f"{name}, {part}",
        rows=tuple(found),
        limit=settings.limit,
        sorted_by=column or (objectives.pop() if len(objectives) == 1 else "accuracy"),
        compared=tuple(compared),
        reference=reference,
    )


def _with_reference(runs: list[Run], against: str) -> list[Run]:
    """The runs, and those that they are to be compared with where these are others.

    Raises:
        BadRequest: nothing is called so, neither a row nor a run.
    """
    labels = list(dict.fromkeys(row.label for row in rows(runs)))
    if _ids(runs, against) or against in labels:
        return runs
    try:
        others = named(against)
    except BadRequest:
        raise BadRequest(
            f"against: there is neither a run nor a row {against!r}. {nearest(against, labels[:5])}"
        ) from None
    ids = {run["run_id"] for run in [*runs, *others]}
    return select(CompareSettings(run_ids=tuple(ids)))


def _ids(runs: Sequence[Run], start: str) -> set[str]:
    """Ids of the runs whose own id, or whose group's, starts so."""
    return {
        run["run_id"]
        for run in runs
        if run["run_id"].startswith(start) or str(run["parent"]).startswith(start)
    }


def _asked_by(settings: CompareSettings) -> str:
    asked = {
        "experiment": settings.experiment,
        "study": settings.study,
        "filter": settings.filter,
        "dataset": settings.dataset,
        "run": " ".join(settings.run_ids),
    }
    words = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value)
    return f" ({words})" if words else ""


def nothing_recorded() -> str:
    """What to say where no run can be compared, and how to get some."""
    from harness.tracking.store_address import described

    frame = frames.runs()
    studies = sorted(set(frame["mlflow_experiment"][frame["kind"] == "study"]))
    if studies:
        return f"There are only studies here: python -m harness.compare --study {studies[0]}"
    return (
        f"Nothing is recorded yet in {described()}.\n"
        "Make two runs to compare: python -m harness.run baseline --lr 0.05"
    )
