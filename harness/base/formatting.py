"""How values are written, on screens, in tables and in files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def value_text(value: Any) -> str:
    """A parameter's value as names and tables show it.

    >>> value_text(0.30000000000000004)
    '0.3'
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def number_of(n: int, thing: str) -> str:
    """A number of things in words: `1 epoch`, `2,000 epochs`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: one line for each row, an empty cell for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
