"""Flags that several commands share, and how the help words a default that depends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg


def default(metavar: str, meaning: str) -> Any:
    """How the help shows a flag whose default is None: its placeholder, and what None means."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {meaning})")


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Where the data sets are."""

    data_root: Annotated[
        Path | None, default("FOLDER", "HARNESS_DATA_ROOT, or data in the project")
    ] = None
    """Folder of the data sets."""


@dataclass(frozen=True, kw_only=True)
class RecordedCodeFlag:
    """Whether code of a record may be executed."""

    run_recorded_code: bool = False
    """Execute the code that was recorded with the run, if its experiment is in no file of the
    project: read source.py among its artifacts first."""
