"""The flags of a run that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.runs.resume import Allowed


@dataclass(frozen=True, kw_only=True)
class ResumeFlags:
    """Which run to go on with, and what may have changed since it began."""

    resume: str
    """Id of the run, or last for the latest one that has not completed."""
    allow: tuple[Allowed, ...] = ()
    """What may differ from the record, at the price of other numbers; once for each thing."""
    data_root: Path | None = None
    """Folder of the data sets; default: HARNESS_DATA_ROOT, or data in the project."""
    quiet: bool = False
    """Print the result only."""
