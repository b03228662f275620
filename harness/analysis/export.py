"""The comparison for other programs: CSV and JSON with every column."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from harness.analysis.comparison import Comparison
from harness.analysis.table import Record, column_names
from harness.base.formatting import csv_text


def comparison_csv(found: Sequence[Comparison]) -> str:
    """The rows of all tables with every column; empty if a row has no finite value."""
    records = _records(found)
    names = column_names(records)
    return csv_text(names, ([_plain(record.get(name)) for name in names] for record in records))


def comparison_json(found: Sequence[Comparison]) -> str:
    """A list with an object for each row of all tables; null if a row has no finite value."""
    records = _records(found)
    names = column_names(records)
    return json.dumps(
        [{name: _plain(record.get(name)) for name in names} for record in records], indent=2
    )


def _records(found: Sequence[Comparison]) -> list[Record]:
    return [record for comparison in found for record in comparison.records(comparison.limit)]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
