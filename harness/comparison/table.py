"""The comparison as a table: on a terminal, in a pipe, in Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.comparison.difference import Difference
from harness.comparison.rows import SOURCE, Row
from harness.errors import BadRequest, nearest

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        header: one or two lines.
        rank: which columns give way where there is no room, the highest first; 0 for never.
        numeric: whether its cells stand on the right.
    """

    header: str
    cells: tuple[str, ...]
    rank: int = 0
    numeric: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(len(line) for text in (self.header, *self.cells) for line in text.split("\n"))

    @property
    def constant(self) -> bool:
        """Whether all of several rows have the same."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def records(rows: Sequence[Row], compared: Sequence[Difference | None]) -> list[dict[str, Any]]:
    """Everything about the rows, by column, with the differences where there are any."""
    against = any(compared)
    return [
        {**row.record, **((difference.record() if difference else {}) if against else {})}
        for row, difference in zip(rows, compared, strict=True)
    ]


def column_names(found: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of all records."""
    return list(dict.fromkeys(name for record in found for name in record))


def full_name(name: str, known: Iterable[str]) -> str:
    """A column by its name, which may lack `params.` or `metrics.` at its start.

    Raises:
        BadRequest: there is no such column.
    """
    names = list(known)
    for start in ("", "params.", "metrics.", "tags."):
        if start + name in names:
            return start + name
    short = {n.removeprefix("params.").removeprefix("metrics.") for n in names}
    raise BadRequest(f"There is no column {name!r}. {nearest(name, short)}")


def chosen_columns(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Column]:
    """The columns of those names, with the row's short id before them."""
    known = column_names(found)
    return [_column(found, "row", "run")] + [
        _column(found, full_name(name, known), name) for name in names
    ]


def usual_columns(rows: Sequence[Row], found: Sequence[dict[str, Any]]) -> list[Column]:
    """What differs, what the rows are judged by, how long they took, on what, how they ended."""
    known = column_names(found)
    several = any(row.n > 1 for row in rows)
    objectives = sorted({row.objective for row in rows if row.objective})
    against = "verdict" in known

    def differs(name: str) -> bool:
        return len({str(record.get(name)) for record in found}) > 1

    def given(name: str, header: str, rank: int = 0) -> list[Column]:
        return [_column(found, name, header, rank)] if differs(name) else []

    columns = [_column(found, "row", "run")]
    if any(row.runs[0]["kind"] == "trial" for row in rows):
        columns.append(_column(found, "tags.harness.trial", "trial"))
    elif any(row.label.partition(" ")[0] != row.runs[0]["experiment"] for row in rows):
        columns.append(_column(found, "label", "name"))
    columns += given("experiment", "experiment")
    if differs(SOURCE) and not differs("experiment"):
        columns.append(_column(found, SOURCE, "source"))
    if several:
        columns.append(_column(found, "n", "n"))
    columns += given("seeds", "seeds", 5)
    for name in known:
        if name.startswith("params."):
            columns += given(name, name.removeprefix("params."))
    for name in ("data.validation", "data.test"):
        if differs(name) and not differs("params.dataset"):
            columns += given(name, name.removeprefix("data.") + "\nimages")
    for metric in objectives:
        columns.append(_column(found, f"metrics.{metric}", metric))
        if several:
            columns.append(_column(found, f"std.{metric}", "±"))
            columns.append(_interval(found, f"low.{metric}", f"high.{metric}", 2))
    if against:
        columns.append(_column(found, "difference", "difference"))
        columns.append(_interval(found, "difference.low", "difference.high"))
        columns.append(_column(found, "pairs", "pairs", 3))
        columns.append(_column(found, "p", "p"))
        columns.append(_column(found, "verdict", "verdict"))
    for metric in objectives:
        loss = metric.replace("accuracy", "loss")
        columns.append(_column(found, f"best.{metric}", "best\nepoch", 6))
        columns.append(_column(found, f"metrics.{loss}", loss, 4))
        columns.append(_column(found, f"best.{loss}", "lowest\nloss", 9))
    columns += given("epochs", "epochs", 3)
    columns.append(_column(found, "seconds", "seconds", 7))
    columns += given("threads", "threads", 8)
    columns += given("device_name", "device name", 8)
    columns.append(_column(found, "device", "device", 1))
    columns.append(_column(found, "outcome", "outcome", 1))
    return columns


def narrowed(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns for which there is room, and those that gave way.

    First those go that say the same in every row, then those of the highest rank.
    """
    kept, gone = list(columns), []
    while sum(column.width + GAP for column in kept) - GAP > width:
        giving = [column for column in kept if column.rank]
        if not giving:
            break
        least = max(giving, key=lambda column: (column.constant, column.rank))
        kept.remove(least)
        gone.append(least)
    return kept, gone


def about_gone(columns: Sequence[Column]) -> list[str]:
    """What columns that gave way would have said: in one word, or where to see them."""
    shared = [f"{column.header} {column.cells[0]}" for column in columns if column.constant]
    others = [column.header.replace("\n", " ") for column in columns if not column.constant]
    notes = []
    if shared:
        notes.append(f"The same in every row: {', '.join(shared)}.")
    if others:
        notes.append(f"No room for: {', '.join(others)}. Widen the window, or choose --columns.")
    return notes


def plain(columns: Sequence[Column]) -> str:
    """The table as aligned text, without colours and however wide it is."""
    from rich.console import Console

    text = io.StringIO()
    wide = sum(column.width + GAP for column in columns)
    _print(columns, Console(file=text, width=wide, color_system=None, legacy_windows=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def show(columns: Sequence[Column], console: Console) -> None:
    """Print the table on a terminal; what is too wide for a cell goes on in its next line."""
    _print(columns, console)


def markdown(columns: Sequence[Column]) -> str:
    """The table in Markdown."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join(
        [
            line(column.header.replace("\n", " ") for column in columns),
            line("---:" if column.numeric else "---" for column in columns),
            *(line(cells) for cells in zip(*(column.cells for column in columns), strict=True)),
        ]
    )


def _print(columns: Sequence[Column], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        table.add_column(
            column.header,
            justify="right" if column.numeric else "left",
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _column(found: Sequence[dict[str, Any]], name: str, header: str, rank: int = 0) -> Column:
    values = [record.get(name) for record in found]
    numeric = all(isinstance(value, (int, float)) or value is None for value in values)
    return Column(header, tuple(_cell(name, value) for value in values), rank, numeric)


def _interval(found: Sequence[dict[str, Any]], low: str, high: str, rank: int = 0) -> Column:
    cells = tuple(
        ""
        if record.get(low) is None
        else f"{_cell(low, record[low])} to {_cell(high, record[high])}"
        for record in found
    )
    return Column("95% interval", cells, rank)


def _cell(name: str, value: Any) -> str:
    """A value as the table shows it, by the name of its column."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if name.startswith("data.") or name in (SOURCE, "git_commit"):
        return str(value)[:8]
    if not isinstance(value, float):
        return str(value)
    if name.startswith("params."):
        return f"{value:.6g}"
    if name == "seconds":
        return f"{value:.1f}"
    if name.startswith("difference"):
        return f"{value:+.4f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
