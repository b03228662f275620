"""The comparison as files: CSV and JSON with every column."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.analysis.table import column_names
from harness.base.errors import BadRequest
from harness.base.formatting import csv_text


def records_csv(records: Sequence[dict[str, Any]]) -> str:
    """A row a line; empty where a row has no such value."""
    names = column_names(records)
    rows = ([_plain(record.get(name)) for name in names] for record in records)
    return csv_text(names, rows)


def json_text(records: Sequence[dict[str, Any]]) -> str:
    """A list with an object a row; null where a row has no such value, or none that is finite."""
    names = column_names(records)
    return json.dumps(
        [{name: _plain(record.get(name)) for name in names} for record in records], indent=2
    )


def write(path: Path, flag: str, content: str | bytes) -> None:
    """Write one of the files.

    Raises:
        BadRequest: it cannot be written there.
    """
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise BadRequest(f"{flag}: {path} cannot be written: {error.strerror}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
