"""The flags of `run --resume`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from harness.cli.shared_flags import DataFlags
from harness.tracking import store_address
from harness.tracking.reader import open_reader
from harness.tracking.schema import AllowedChange, StoredRun


@dataclass(frozen=True, kw_only=True)
class ResumeFlags(DataFlags):
    """Which run to go on with, and what may have changed since it began."""

    resume: Annotated[str, arg(metavar="RUN")]
    """Id of the run, or last for the latest one that has not completed."""
    allow: tuple[AllowedChange, ...] = ()
    """What may differ from the record, at the price of other numbers; repeat it for each thing."""
    quiet: bool = False
    """Print the result only."""


def run_to_resume(settings: ResumeFlags) -> StoredRun:
    """The run that the flags name.

    Raises:
        BadRequest: no run or more than one is meant, or nothing was recorded yet.
    """
    store_address.check_address()
    store_address.check_recorded("resume")
    return open_reader().find(settings.resume, "resume")
