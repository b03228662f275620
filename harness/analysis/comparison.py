"""A comparison: the rows that are asked for, in order, with the notes that a reader needs."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import table
from harness.analysis.curves import draw_curves
from harness.analysis.differences import Difference, differences, reference_among
from harness.analysis.query import (
    Query,
    data_seen,
    judged_on,
    refuse_mixed_data,
    select,
    with_children,
)
from harness.analysis.rows import Row, ordered_rows, rows_of
from harness.base.errors import BadRequest, nearest
from harness.base.formatting import harmless, number_of
from harness.base.verdict import FEWEST_SEEDS
from harness.tracking import store_address
from harness.tracking.reader import Reader
from harness.tracking.schema import ENDED, StoredRun

PARTS = {"trial": "trials", "confirm": "confirmations on the test examples"}
"""Kinds of runs that have a table of their own; all others share one."""

ENOUGH_SEEDS = 5
"""Seeds with which a difference has a fair chance to be found."""

MOST_SENTENCES = 10
"""Comparisons that are also told in a sentence each."""

SHOWN_ROWS = 100
"""Rows that are printed if no limit is given; files have all of them."""


@dataclass(frozen=True)
class Comparison:
    """One table.

    Attributes:
        subject: what is compared, in words.
        rows: in their order.
        sorted_by: the column that gave them their order.
        compared: each row's difference from the reference; None for the reference itself, and for
            all rows if there is no reference.
        limit: the most rows to print and to write to files; None for the default.
        met: ids of the runs that meet a filter on results, which takes rows as a whole.
    """

    subject: str
    rows: tuple[Row, ...]
    sorted_by: str
    compared: tuple[Difference | None, ...]
    reference: Row | None = None
    limit: int | None = None
    met: frozenset[str] | None = None

    def records(self, number: int | None = None) -> list[table.Record]:
        """Everything about the first rows (or all), by column."""
        return table.records(self.rows[:number], self.compared[:number], self.reference)

    @property
    def n_shown(self) -> int:
        """How many rows are printed."""
        return min(len(self.rows), self.limit or SHOWN_ROWS)

    def columns(self, names: Sequence[str]) -> list[table.Column]:
        """The columns of those names, or the usual ones; with the rows that are printed."""
        shown = self.records(self.n_shown)
        if names:
            return table.chosen_columns(self.rows, shown, names)
        return table.usual_columns(self.rows, shown)

    def picture(self, reader: Reader, kind: str) -> bytes:
        """The learning curves as a file of that kind; see `draw_curves`."""
        rows = self.rows[: self.limit]
        counts = Counter(row.label for row in rows)
        labels = [
            f"{row.label} ({row.short_id})" if counts[row.label] > 1 else row.label for row in rows
        ]
        return draw_curves(rows, labels, self.subject, reader, kind)

    @property
    def heading(self) -> str:
        """What is compared, how many runs, on which examples and device, in which order."""
        runs = [run for row in self.rows for run in row.runs]
        seen = sorted({words for run in runs if (words := judged_on(run))})
        where = sorted(
            {
                f"{run.tag('device_name')}, {number_of(int(run.tag('threads') or 0), 'thread')}"
                for run in runs
            }
        )
        parts = [
            f"{self.subject}: {number_of(len(runs), 'run')}"
            + (f" in {number_of(len(self.rows), 'row')}" if len(runs) > len(self.rows) else ""),
            *([seen[0]] if len(seen) == 1 else []),
            *([where[0]] if len(where) == 1 and runs[0].tag("device_name") else []),
            f"sorted by {self.sorted_by.removeprefix('metrics.').removeprefix('params.')}",
        ]
        return harmless("; ".join(parts))

    @property
    def notes(self) -> list[str]:
        """What a reader should know before believing the numbers."""
        notes = []
        runs = [run for row in self.rows for run in row.runs]
        if self.n_shown < len(self.rows):
            rows = number_of(len(self.rows), "row")
            notes.append(f"showing {self.n_shown:,} of {rows}: raise --limit.")
        if repeats := sum(len(row.repeats) for row in self.rows):
            notes.append(
                f"{number_of(repeats, 'run')} left out: a later one has the same fields and seed."
            )
        if self.met is not None and (others := [run for run in runs if run.run_id not in self.met]):
            partly = [row for row in self.rows if {run.run_id for run in row.runs} - self.met]
            notes.append(
                f"The filter does not hold for {number_of(len(others), 'run')} in "
                f"{', '.join(row.short_id for row in partly)}: a filter on results takes all seeds "
                "of a row or none, since those that meet it would be selected."
            )
        if any(run.outcome not in (*ENDED, "pruned") for run in runs):
            notes.append("A run that has not completed has its own row, with the epochs it has.")
        if len({data_seen(run) for run in runs}) > 1:
            notes.append("The rows saw different examples: their numbers are not comparable.")
        if self.reference:
            notes += self._about_differences(self.reference)
        return notes

    def _about_differences(self, reference: Row) -> list[str]:
        found = [d.verdict for d in self.compared[: self.n_shown] if d and d.verdict]
        several = len(found) > 1
        notes = [
            f"difference: {reference.objective} minus that of {reference.short_id} "
            f"({reference.label}), seed by seed."
        ]
        notes += [
            # Of many, the table says what it is; what a verdict rests on is said of one.
            verdict.sentence if several else str(verdict)
            for verdict in found[:MOST_SENTENCES]
        ]
        if any(verdict.n < FEWEST_SEEDS for verdict in found):
            notes.append(
                f"With fewer than {FEWEST_SEEDS} shared seeds there is no verdict. Run more: "
                f"{_more_seeds(reference.latest)}"
            )
        if any(d and d.reason == "other code" for d in self.compared):
            notes.append(
                "other code: the file of the experiment, or a module that it imports, has changed "
                "between the runs. A difference could come from that instead of the settings."
            )
        return notes


def _more_seeds(run: StoredRun) -> str:
    """A command that makes enough runs like this one, with different seeds."""
    if run.kind == "confirm":
        name = shlex.quote(run.mlflow_experiment)
        return f"python -m harness.study {name} --confirm-seeds {ENOUGH_SEEDS}"
    return f"python -m harness.run {run.experiment or 'NAME'} --repeats {ENOUGH_SEEDS}"


def comparisons(
    query: Query,
    reader: Reader,
    *,
    against: str | None = None,
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
    mixed_data: bool = False,
) -> list[Comparison]:
    """The tables for a query; none if nothing at all is recorded.

    Args:
        against: run, group or label of the row that all others are compared with.
        sort: column to sort by, otherwise the objective.
        mixed_data: compare runs that saw different examples.

    Raises:
        BadRequest: no run meets the query, or the runs cannot be compared.
        RunFailed: the store cannot be read.
    """
    runs = select(query, reader)
    if not runs:
        if query != Query():
            raise BadRequest(f"There are no such runs ({query}).")
        return []
    met: frozenset[str] | None = None
    whole: set[str] = set()
    if query.filters_results:
        met = frozenset(run.run_id for run in runs)
        everything = select(dataclasses.replace(query, filter=""), reader)
        whole = {
            run.run_id
            for row in rows_of(everything)
            if row.holds(set(met))
            for run in (*row.runs, *row.repeats)
        }
        runs = [run for run in everything if run.run_id in whole]
    if against:
        runs = _with_reference(runs, against, reader)
    if met is not None:
        met |= {run.run_id for run in runs} - whole  # the reference was asked for by itself
    parts: dict[str, list[StoredRun]] = {}
    for run in runs:
        parts.setdefault(PARTS.get(run.kind, "runs"), []).append(run)
    if not mixed_data:
        for part in parts.values():
            refuse_mixed_data(part)
    names = {run.experiment or run.mlflow_experiment for run in runs}
    subject = query.study or query.experiment or ", ".join(sorted(names))
    return [
        _comparison(
            subject if part == "runs" else f"{subject}, {part}",
            rows_of(parts[part]),
            _ids(parts[part], against) if against else set(),
            against,
            sort,
            reverse,
            limit,
            met,
            reader,
        )
        # Confirmations are the end of a study, and of its tables.
        for part in ("runs", *PARTS.values())
        if part in parts
    ]


def _comparison(
    subject: str,
    found: list[Row],
    references: set[str],
    against: str | None,
    sort: str | None,
    reverse: bool,
    limit: int | None,
    met: frozenset[str] | None,
    reader: Reader,
) -> Comparison:
    column = None
    objectives = {row.objective for row in found if row.objective}
    if sort:
        column = table.full_name(sort, table.column_names([row.record for row in found]))
    elif not objectives:
        column = "start_time"
    found = ordered_rows(found, column, reverse)
    reference = reference_among(found, against, references) if against else None
    return Comparison(
        subject,
        tuple(found),
        column or (objectives.pop() if len(objectives) == 1 else "objective"),
        tuple(differences(found, reference, reader) if reference else [None] * len(found)),
        reference,
        limit,
        met,
    )


def _with_reference(runs: list[StoredRun], against: str, reader: Reader) -> list[StoredRun]:
    """The runs, and those of the reference if it is not among them.

    Raises:
        BadRequest: neither a row nor a run has that name.
    """
    labels = list(dict.fromkeys(row.label for row in rows_of(runs)))
    if _ids(runs, against) or against in labels:
        return runs
    try:
        reference = reader.find(against)
    except BadRequest:
        raise BadRequest(
            f"against: there is neither a run nor a row {against!r}. {nearest(against, labels[:5])}"
        ) from None
    return with_children([*runs, reference], reader)


def _ids(runs: Sequence[StoredRun], start: str) -> set[str]:
    """Ids of the runs whose own id, or whose group's, starts so."""
    return {
        run.run_id
        for run in runs
        if run.run_id.startswith(start) or (run.parent or "").startswith(start)
    }


def nothing_recorded(reader: Reader) -> str:
    """What to print if there is no run to compare, and how to make some."""
    studies = sorted({run.mlflow_experiment for run in reader.runs() if run.kind == "study"})
    if studies:
        name = shlex.quote(studies[0])
        return f"There are only studies here: python -m harness.compare --study {name}"
    return (
        f"Nothing is recorded yet in {store_address.described()}.\n"
        "Make two runs to compare: python -m harness.run baseline --lr 0.05"
    )
