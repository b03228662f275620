"""How values are written: on the screen, in names, tables and files."""

from __future__ import annotations

import csv
import html
import io
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that steer a screen, turn text around, or cannot be seen."""

_JOINERS = "\u200c\u200d"
"""The two invisible characters that scripts and emoji need."""

_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the start of a formula, in full width too."""


def harmless(text: str, *, lines: bool = False) -> str:
    """Return a text that does nothing but show itself, wherever it is printed.

    Whoever may write to a store chooses names there. Control characters, line breaks, and
    characters that change the direction of writing are shown as escapes.

    Args:
        lines: keep line breaks; for a text that may have several lines.

    >>> harmless("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSEEN
        and character not in _JOINERS
        and not (lines and character == "\n")
        else character
        for character in text
    )


def value_text(value: Any) -> str:
    """Return a parameter's value as names and tables show it: numbers to six digits.

    >>> value_text(0.30000000000000004)
    '0.3'
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def assignments(values: Mapping[str, Any], separator: str = " ") -> str:
    """Return names with their values, as they stand in a run's name.

    >>> assignments({"lr": 0.0512345678, "batch_size": 64})
    'lr=0.0512346 batch_size=64'
    """
    return separator.join(f"{name}={value_text(value)}" for name, value in values.items())


def capitalized(text: str) -> str:
    """Return a text as a sentence begins."""
    return text[:1].upper() + text[1:]


def metric_text(value: float | None) -> str:
    """Return a metric's value as tables and the screen show it.

    >>> metric_text(0.98765)
    '0.9877'
    >>> metric_text(203530.0)
    '203,530'
    """
    if value is None:
        return "none"
    if abs(value) >= 1e7:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def number_of(n: int, thing: str) -> str:
    """Return a number of things in words: `1 epoch`, `2,000 epochs`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(4210)
    '1 h 10 min'
    """
    if not math.isfinite(seconds):  # as a damaged record has it
        return "? s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def html_facts(title: str, facts: Mapping[str, Any]) -> str:
    """Return a small table of facts as HTML, as a notebook shows it."""

    def shown(text: str) -> str:
        return html.escape(harmless(text, lines=True))

    rows = "".join(
        f"<tr><th style='text-align:left'>{shown(name)}</th>"
        f"<td style='text-align:left'>{shown(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{shown(title)}</caption>{rows}</table>"


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV: a line for each row, an empty cell for None.

    A text that a spreadsheet would compute gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_csv_cell(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = harmless(value)
    if unicodedata.normalize("NFKC", value.lstrip()[:1]) in _FORMULA:
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value
