"""The comparison as a table: on a terminal, in a pipe, in Markdown."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.analysis.differences import Difference
from harness.analysis.rows import SOURCE, Row
from harness.base.errors import BadRequest, nearest
from harness.base.formatting import harmless, metric_text, value_text
from harness.tracking.frames import ordered_columns

if TYPE_CHECKING:
    from rich.console import Console

Record = dict[str, Any]
"""A row's values by column."""

OWN = ("row", "name", "n", "seeds", "examples", "commit")
"""Columns that rows have and runs do not; they come first."""

MARKED, ESCAPED = re.compile(r"[\\|`<\[*]"), r"\\\g<0>"
"""What means something in Markdown: ends a cell, begins code, a tag, a link or an emphasis."""

GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        header: one or two lines.
        rank: in a narrow window, columns with the highest rank are left out first; 0 never is.
        numeric: whether its cells are aligned to the right.
        wraps: whether a cell may take several lines in a narrow window.
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
        """The fewest characters that the column needs."""
        if not self.wraps:
            return self.width
        return max(len(word) for text in (self.header, *self.cells) for word in text.split(" "))

    @property
    def constant(self) -> bool:
        """Whether all of several rows show the same."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def records(
    rows: Sequence[Row], compared: Sequence[Difference | None], reference: Row | None
) -> list[Record]:
    """Everything about the rows, with their differences; a column has a value in some row."""
    found = [
        row.record
        | (difference.record() if difference else {})
        | ({"verdict": "reference"} if row is reference else {})
        for row, difference in zip(rows, compared, strict=True)
    ]
    known = {name for record in found for name, value in record.items() if value is not None}
    return [{name: value for name, value in r.items() if name in known} for r in found]


def column_names(found: Sequence[Record]) -> list[str]:
    """The columns of all records, in their order."""
    names = dict.fromkeys(name for record in found for name in record)
    own = [name for name in OWN if name in names]
    return list(dict.fromkeys([*own, *ordered_columns(names), *names]))


def full_name(name: str, known: Iterable[str]) -> str:
    """A column's whole name, given it without `params.`, `metrics.` or `tags.` at its start.

    Raises:
        BadRequest: the column does not exist.
    """
    names = list(known)
    for start in ("", "params.", "metrics.", "tags."):
        if start + name in names:
            return start + name
    guess = nearest(name, {n.removeprefix("params.").removeprefix("metrics.") for n in names})
    hint = guess if guess.startswith("Did") else "--csv FILE writes all columns."
    raise BadRequest(f"There is no column {name!r}. {hint}")


def chosen_columns(
    rows: Sequence[Row], shown: Sequence[Record], names: Sequence[str]
) -> list[Column]:
    """The columns of those names, after the row's short id; cells of the records that are shown."""
    known = column_names([*shown, *(row.values for row in rows)])
    return [_column(shown, "row", "run")] + [
        _column(shown, full_name(name, known), _lines(name)) for name in names
    ]


def usual_columns(rows: Sequence[Row], shown: Sequence[Record]) -> list[Column]:
    """What differs between the rows, their objective, their time, device and outcome.

    Args:
        rows: all of them.
        shown: the records that have cells.
    """
    known = column_names([*shown, *(row.values for row in rows)])
    several = any(row.n > 1 for row in rows)
    objectives = sorted({row.objective for row in rows if row.objective})
    against = "verdict" in known

    def differs(name: str) -> bool:
        return len({row.values.get(name) for row in rows}) > 1

    def given(name: str, header: str, rank: int = 0) -> list[Column]:
        return [_column(shown, name, header, rank)] if differs(name) else []

    columns = [_column(shown, "row", "run")]
    if any(row.runs[0].kind == "trial" for row in rows):
        columns.append(_column(shown, "tags.harness.trial", "trial"))
    elif any(row.is_named for row in rows):
        columns.append(_column(shown, "name", "name"))
    columns += given("tags.harness.code_version", "code\nversion")
    columns += given("experiment", "experiment")
    if differs(SOURCE) and not differs("experiment"):
        columns.append(_column(shown, SOURCE, "source"))
    if several:
        columns.append(_column(shown, "n", "n"))
    columns += given("seeds", "seeds", 8)
    columns += given("examples", "examples", 3)
    for name in known:
        if name.startswith("params.") and name != "params.dataset":
            columns += given(name, _lines(name.removeprefix("params.")))
    for name in ("data.training", "data.validation", "data.test"):
        if not differs("examples"):
            columns += given(name, f"{name.removeprefix('data.')}\nexamples")
    for metric in objectives:
        columns.append(_column(shown, f"metrics.{metric}", _lines(metric)))
        if several:
            columns.append(_column(shown, f"std.{metric}", "±", 4 if against else 1))
            columns.append(_interval(shown, f"low.{metric}", f"high.{metric}", 2))
    if against:
        columns.append(_column(shown, "difference", "differ-\nence"))
        columns.append(_interval(shown, "difference.low", "difference.high"))
        columns.append(_column(shown, "pairs", "pairs", 4))
        columns.append(_column(shown, "p", "p", 1))
        columns.append(_column(shown, "verdict", "verdict"))

    def best(metric: str, rank: int) -> list[Column]:
        # The best of many epochs on the test examples would be selected on them.
        if not metric.startswith("validation/"):
            return []
        return [_column(shown, f"best.{metric}", f"best\n{metric.partition('/')[2]}", rank)]

    for metric in objectives:
        columns += best(metric, 6)
    for metric in dict.fromkeys(name for row in rows for name in row.judged):
        if metric not in objectives:
            columns += [_column(shown, f"metrics.{metric}", _lines(metric), 7), *best(metric, 9)]
    columns += given("commit", "commit", 4)
    columns += given("epochs", "epochs", 3)
    columns.append(_column(shown, "seconds", "seconds", 5))
    columns += given("threads", "threads", 8)
    columns += given("device_name", "device name", 8)
    columns.append(_column(shown, "device", "device", 1))
    columns.append(_column(shown, "outcome", "outcome", 1))
    return [column for column in columns if any(column.cells)]


def narrowed(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit into a width, and those left out.

    Columns that say the same in every row are left out first, then those of the highest rank.
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
    """What columns that were left out say: their value if all rows share it, or how to see them."""
    shared = [f"{_one_line(c.header)} {c.cells[0]}" for c in columns if c.constant]
    others = [_one_line(column.header) for column in columns if not column.constant]
    notes = []
    if shared:
        notes.append(f"The same in every row shown: {', '.join(shared)}.")
    if others:
        notes.append(f"No room for: {', '.join(others)}. Widen the window, or choose --columns.")
    return notes


def print_table(
    heading: str,
    columns: Sequence[Column],
    notes: Sequence[str],
    *,
    as_markdown: bool = False,
    may_narrow: bool = True,
) -> None:
    """Print a table with its heading and notes; in full width, except on a terminal.

    Args:
        may_narrow: leave out columns that do not fit the terminal.
    """
    from rich.console import Console  # rich is slow to import, and reports use this module too

    console = Console(highlight=False, emoji=False)
    say = functools.partial(console.print, markup=False, soft_wrap=not console.is_terminal)
    say(f"{heading}\n")
    if as_markdown:
        print(markdown(columns))
    elif not console.is_terminal:
        print(plain(columns))
    else:
        if may_narrow:
            columns, gone = narrowed(columns, console.width)
            notes = [*about_gone(gone), *notes]
        show(columns, console)
    if notes:
        say("\n" + "\n".join(notes))


def plain(columns: Sequence[Column]) -> str:
    """The table as aligned text, as wide as it needs to be."""
    from rich.cells import cell_len  # see `print_table`

    def aligned(column: Column) -> list[str]:
        lines = [*_header(columns, column).split("\n"), *column.cells]
        width = max(map(cell_len, lines))
        gaps = (" " * (width - cell_len(line)) for line in lines)
        return [
            gap + line if column.numeric else line + gap
            for line, gap in zip(lines, gaps, strict=True)
        ]

    rows = zip(*map(aligned, columns), strict=True)
    return "\n".join((" " * GAP).join(cells).rstrip() for cells in rows)


def show(columns: Sequence[Column], console: Console) -> None:
    """Print the table on a terminal; a cell that is too wide takes several lines."""
    from rich.table import Table  # see `print_table`
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            _header(columns, column),
            justify="right" if column.numeric else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def markdown(columns: Sequence[Column]) -> str:
    """The table in Markdown."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(MARKED.sub(ESCAPED, cell) for cell in cells)} |"

    return "\n".join(
        [
            line(_one_line(column.header) for column in columns),
            line("---:" if column.numeric else "---" for column in columns),
            *(line(cells) for cells in zip(*(column.cells for column in columns), strict=True)),
        ]
    )


def _header(columns: Sequence[Column], column: Column) -> str:
    """A column's header with as many lines as the tallest: a short one is right above its cells."""
    lines = max(other.header.count("\n") for other in columns)
    return "\n" * (lines - column.header.count("\n")) + column.header


def _lines(name: str) -> str:
    """A long name such as `test/accuracy` or `hidden_width` in two lines, to save width."""
    name = harmless(name)
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


def _column(shown: Sequence[Record], name: str, header: str, rank: int = 0) -> Column:
    values = [record.get(name) for record in shown]
    numeric = all(isinstance(v, int | float) or str(v).isdecimal() or v is None for v in values)
    wraps = name in ("name", "verdict", "outcome", "examples")
    return Column(header, tuple(_cell(name, v) for v in values), rank, numeric, wraps)


def _interval(shown: Sequence[Record], low: str, high: str, rank: int = 0) -> Column:
    cells = tuple(
        ""
        if record.get(low) is None
        else f"{_cell(low, record[low])} to {_cell(high, record[high])}"
        for record in shown
    )
    return Column("95% interval", cells, rank)


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers with ranges shortened: `0-4 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else " ".join(map(str, r)) for r in runs)


def _cell(name: str, value: Any) -> str:
    """A value as the table shows it in the column of that name."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if name.startswith("data.") or name in (SOURCE, "git_commit"):
        return harmless(str(value)[:8])
    if name == "seeds":
        return _ranges([int(seed) for seed in value.split()])
    if not isinstance(value, float) or name.startswith("params."):
        return harmless(value_text(value))
    if name == "seconds":
        return f"{value:.1f}"
    if name.startswith("difference"):
        return f"{value:+.4f}"
    return metric_text(value)
