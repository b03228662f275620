"""The comparison as files: CSV and JSON with every column, and the learning curves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.analysis.comparison import Comparison
from harness.analysis.table import Record, column_names
from harness.base.errors import BadRequest
from harness.base.formatting import csv_text
from harness.tracking.reader import Reader


def write_files(
    found: Sequence[Comparison],
    reader: Reader,
    *,
    csv_file: Path | None = None,
    json_file: Path | None = None,
    curves_file: Path | None = None,
) -> None:
    """Write the files that are asked for: all tables as one, the curves of the first.

    Raises:
        BadRequest: a file cannot be written, or there are no curves.
    """
    if csv_file or json_file:
        records = [
            record for comparison in found for record in comparison.records(comparison.limit)
        ]
    if csv_file:
        names = column_names(records)
        rows = ([_plain(record.get(name)) for name in names] for record in records)
        _write(csv_file, "csv", csv_text(names, rows).encode())
    if json_file:
        _write(json_file, "json", json_text(records).encode())
    if curves_file:
        picture = found[0].picture(reader, curves_file.suffix.removeprefix("."))
        _write(curves_file, "curves", picture)


def json_text(records: Sequence[Record]) -> str:
    """A list with an object for each row; null if a row has no finite value."""
    names = column_names(records)
    return json.dumps(
        [{name: _plain(record.get(name)) for name in names} for record in records], indent=2
    )


def _write(path: Path, flag: str, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadRequest(f"{flag}: {path} cannot be written: {error.strerror}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
