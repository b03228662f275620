"""A report as plain data, and the HTML page that it becomes.

The page contains its pictures, its style and its script, so that it opens anywhere, without a
network. The template escapes all text, whoever wrote it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.base.formatting import harmless

TEMPLATE = Path(__file__).with_name("page.html")

Value = str | int | float | bool | None
"""The content of a cell; None is shown as a dash and sorted last."""


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by empty lines."""

    form: ClassVar[str] = "text"
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """Each paragraph."""
        return self.text.split("\n\n")


@dataclass(frozen=True)
class VerdictBox:
    """The answer in one sentence."""

    form: ClassVar[str] = "verdict"
    text: str


@dataclass(frozen=True)
class WarningList:
    """What readers should know before they rely on the answer."""

    form: ClassVar[str] = "warnings"
    sentences: Sequence[str]


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    form: ClassVar[str] = "commands"
    lines: Sequence[str]


@dataclass(frozen=True)
class Item:
    """One line of a checklist.

    Attributes:
        fine: whether it is recorded and in order.
    """

    name: str
    record: str
    fine: bool = True


@dataclass(frozen=True)
class Checklist:
    """What others need to repeat the work, and whether it is recorded."""

    form: ClassVar[str] = "checklist"
    items: Sequence[Item]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        alternative: what it shows, in words, for readers who cannot see it.
        wide: whether it needs a row of its own.
    """

    svg: bytes
    alternative: str
    wide: bool = False

    @property
    def source(self) -> str:
        """The picture as a `data:` URL."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


@dataclass(frozen=True)
class Pictures:
    """Pictures, side by side if the page is wide enough."""

    form: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        digits: the format of its floats, as `.4f`.
    """

    name: str
    digits: str = ""

    def words(self, value: Value) -> str:
        """The value as the table shows it."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "—"
        return format(value, self.digits) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        sortable: whether clicking a column's name sorts the rows.
    """

    form: ClassVar[str] = "table"
    caption: str
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[Value]]
    sortable: bool = False

    def is_numeric(self, column: int) -> bool:
        """Whether all values of a column are numbers."""
        values = [row[column] for row in self.rows if row[column] is not None]
        return bool(values) and all(
            isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
        )


Block = Text | VerdictBox | WarningList | Commands | Checklist | Pictures | Table


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The fragment by which links find the section."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Fact:
    """A key number: its name, its value, and what it is based on."""

    name: str
    value: str
    basis: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        kind: what it is about, as `Study of baseline`.
        question: what was asked, or "".
    """

    title: str
    kind: str
    question: str
    facts: Sequence[Fact]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: harmless(value, lines=True) if isinstance(value, str) else value,
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page=page)
