"""The files that a comparison is asked to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.analysis.comparison import Comparison
from harness.analysis.export import comparison_csv, comparison_json
from harness.base.errors import BadRequest
from harness.cli.compare_flags import CompareSettings
from harness.cli.output import check_writable, write_output
from harness.tracking.reader import Reader


def check_files(settings: CompareSettings) -> None:
    """Refuse files that cannot be written, before anything is computed.

    Raises:
        BadRequest: one of them cannot, or two are the same.
    """
    seen: dict[Path, str] = {}
    for flag in ("csv", "json", "curves"):
        if path := getattr(settings, flag):
            check_writable(flag, path)
            if (other := seen.setdefault(path.resolve(), flag)) != flag:
                raise BadRequest(f"{flag}: {path} is the file of --{other}; name another one.")


def write_files(settings: CompareSettings, found: Sequence[Comparison], reader: Reader) -> None:
    """Write all tables as one file, and the learning curves of the first.

    Raises:
        BadRequest: a file cannot be written, or there are no curves.
    """
    if settings.csv:
        write_output("csv", settings.csv, comparison_csv(found).encode())
    if settings.json:
        write_output("json", settings.json, comparison_json(found).encode())
    if settings.curves:
        kind = settings.curves.suffix.removeprefix(".")
        write_output("curves", settings.curves, found[0].picture(reader, kind))
