"""The comparison as a table: on a terminal, in a pipe, in Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.analysis.differences import Difference
from harness.analysis.rows import SOURCE, Row
from harness.base.errors import BadRequest, nearest
from harness.base.formatting import value_text

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
        wraps: whether a cell may go on in its next line where there is no room.
    """

    header: str
    cells: tuple[str, ...]
    rank: int = 0
    numeric: bool = False
    wraps: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(len(line) for text in (self.header, *self.cells) for line in text.split("\n"))

    @property
    def least_width(self) -> int:
        """Characters that it cannot do without."""
        if not self.wraps:
            return self.width
        return max(len(word) for text in (self.header, *self.cells) for word in text.split(" "))

    @property
    def constant(self) -> bool:
        """Whether all of several rows have the same."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def records(rows: Sequence[Row], compared: Sequence[Difference | None]) -> list[dict[str, Any]]:
    """Everything about the rows, by column, with the differences where there are any."""
    reference = {"verdict": "reference"} if any(compared) else {}
    found = [
        {**row.record, **(difference.record() if difference else reference)}
        for row, difference in zip(rows, compared, strict=True)
    ]
    known = {name for record in found for name, value in record.items() if value is not None}
    return [{name: value for name, value in r.items() if name in known} for r in found]


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
    guess = nearest(name, {n.removeprefix("params.").removeprefix("metrics.") for n in names})
    hint = guess if guess.startswith("Did") else "--csv FILE writes all of them."
    raise BadRequest(f"There is no column {name!r}. {hint}")


def chosen_columns(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Column]:
    """The columns of those names, with the row's short id before them."""
    known = column_names(found)
    return [_column(found, "row", "run")] + [
        _column(found, full_name(name, known), _lines(name)) for name in names
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
    elif any(row.is_named for row in rows):
        columns.append(_column(found, "name", "name"))
    columns += given("experiment", "experiment")
    if differs(SOURCE) and not differs("experiment"):
        columns.append(_column(found, SOURCE, "source"))
    if several:
        columns.append(_column(found, "n", "n"))
    columns += given("seeds", "seeds", 8)
    columns += given("images", "images", 3)
    for name in known:
        if name.startswith("params.") and name != "params.dataset":
            columns += given(name, _lines(name.removeprefix("params.")))
    for name in ("data.training", "data.validation", "data.test"):
        if not differs("images"):
            columns += given(name, f"{name.removeprefix('data.')}\nimages")
    for metric in objectives:
        columns.append(_column(found, f"metrics.{metric}", _lines(metric)))
        if several:
            columns.append(_column(found, f"std.{metric}", "±", 4 if against else 1))
            columns.append(_interval(found, f"low.{metric}", f"high.{metric}", 2))
    if against:
        columns.append(_column(found, "difference", "differ-\nence"))
        columns.append(_interval(found, "difference.low", "difference.high"))
        columns.append(_column(found, "pairs", "pairs", 4))
        columns.append(_column(found, "p", "p", 1))
        columns.append(_column(found, "verdict", "verdict"))
    for metric in objectives:
        loss = metric.replace("accuracy", "loss")
        columns.append(_column(found, f"best.{metric}", "best\naccuracy", 6))
        columns.append(_column(found, f"metrics.{loss}", _lines(loss), 7))
        columns.append(_column(found, f"best.{loss}", "lowest\nloss", 9))
    columns += given("epochs", "epochs", 3)
    columns.append(_column(found, "seconds", "seconds", 5))
    columns += given("threads", "threads", 8)
    columns += given("device_name", "device name", 8)
    columns.append(_column(found, "device", "device", 1))
    columns.append(_column(found, "outcome", "outcome", 1))
    return [column for column in columns if any(column.cells)]


def narrowed(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns for which there is room, and those that gave way.

    First those go that say the same in every row, then those of the highest rank.
    """
    kept, gone = list(columns), []
    while sum(column.least_width + GAP for column in kept) - GAP > width:
        giving = [column for column in kept if column.rank]
        if not giving:
            break
        least = max(giving, key=lambda column: (column.constant, column.rank))
        kept.remove(least)
        gone.append(least)
    return kept, gone


def about_gone(columns: Sequence[Column]) -> list[str]:
    """What columns that gave way would have said: in one word, or where to see them."""
    shared = [f"{_one_line(c.header)} {c.cells[0]}" for c in columns if c.constant]
    others = [_one_line(column.header) for column in columns if not column.constant]
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
            line(_one_line(column.header) for column in columns),
            line("---:" if column.numeric else "---" for column in columns),
            *(line(cells) for cells in zip(*(column.cells for column in columns), strict=True)),
        ]
    )


def _print(columns: Sequence[Column], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    lines = max(column.header.count("\n") for column in columns)
    for column in columns:
        table.add_column(
            # Short headers stand right above their cells.
            "\n" * (lines - column.header.count("\n")) + column.header,
            justify="right" if column.numeric else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _lines(name: str) -> str:
    """A long name in two lines: `test/accuracy` and `hidden_width` need not be so wide."""
    for mark in "/_":
        start, found, rest = name.partition(mark)
        if found and rest and len(name) > 10:
            return f"{start}{mark}\n{rest}"
    return name


def _one_line(header: str) -> str:
    """A header in one line: `test/accuracy`, `hidden_width`, `best accuracy`, `difference`."""
    first, _, second = header.partition("\n")
    joint = "" if first.endswith(("/", "_", "-")) else " "
    return f"{first.removesuffix('-')}{joint}{second}".strip()


def _column(found: Sequence[dict[str, Any]], name: str, header: str, rank: int = 0) -> Column:
    values = [record.get(name) for record in found]
    numeric = all(isinstance(v, (int, float)) or str(v).isdecimal() or v is None for v in values)
    wraps = name in ("name", "verdict", "outcome", "images")
    return Column(header, tuple(_cell(name, value) for value in values), rank, numeric, wraps)


def _interval(found: Sequence[dict[str, Any]], low: str, high: str, rank: int = 0) -> Column:
    cells = tuple(
        ""
        if record.get(low) is None
        else f"{_cell(low, record[low])} to {_cell(high, record[high])}"
        for record in found
    )
    return Column("95% interval", cells, rank)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in rising order, shortly: `0-4 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else " ".join(map(str, r)) for r in runs)


def _cell(name: str, value: Any) -> str:
    """A value as the table shows it, by the name of its column."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if name.startswith("data.") or name in (SOURCE, "git_commit"):
        return str(value)[:8]
    if name == "seeds":
        return _ranges([int(seed) for seed in value.split()])
    if not isinstance(value, float):
        return str(value)
    if name.startswith("params."):
        return value_text(value)
    if name == "seconds":
        return f"{value:.1f}"
    if name.startswith("difference"):
        return f"{value:+.4f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
