"""The flags of `run --resume` and `run --continue`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from harness.base.fields import Count, check_all
from harness.cli import flags
from harness.cli.shared_flags import DataFlags, RecordedCodeFlag
from harness.tracking import store_address
from harness.tracking.reader import open_reader
from harness.tracking.schema import AllowedChange, StoredRun
from harness.tracking.selection import trained_run


@dataclass(frozen=True, kw_only=True)
class _GoingOn(DataFlags, RecordedCodeFlag):
    """What may have changed since a run began."""

    allow: UseAppendAction[tuple[AllowedChange, ...]] = ()
    """What may differ from the record, at the price of other numbers; repeat it for each thing."""
    quiet: bool = False
    """Print the result only."""


@dataclass(frozen=True, kw_only=True)
class ResumeFlags(_GoingOn):
    """Which run to go on with, and what may have changed since it began."""

    resume: Annotated[str, arg(metavar="RUN")]
    """Id of the run, or last for the latest one that has not completed."""
    take_over: bool = False
    """Go on with a run of an ended container, or of another machine that has ended it."""


@dataclass(frozen=True, kw_only=True)
class ContinueFlags(_GoingOn):
    """Which completed run to train further, and for how long."""

    continue_: Annotated[str, arg(name="continue", metavar="RUN")]
    """Id of the run, or last for the latest one that has completed."""
    num_epochs: Annotated[int, Count]
    """Epochs of the new run in all, those of the old one included."""

    def __post_init__(self) -> None:
        check_all(self)


def go_on_with(arguments: Sequence[str]) -> tuple[StoredRun, ResumeFlags | ContinueFlags]:
    """The run to go on with, as the command line says.

    Raises:
        BadRequest: no run or more than one is meant, or nothing was recorded yet.
    """
    settings: ResumeFlags | ContinueFlags
    program = "python -m harness.run"
    if arguments[0].startswith("--resume"):
        about = "Go on with a run that ended too early."
        settings = flags.parse_settings(ResumeFlags, arguments, program, about)
        what, identity = "resume", settings.resume
    else:
        about = "Train a completed run further, as a new run."
        settings = flags.parse_settings(ContinueFlags, arguments, program, about)
        what, identity = "continue", settings.continue_
    store_address.check_address()
    store_address.check_recorded(what)
    reader = open_reader()
    find = reader.find if what == "resume" else functools.partial(trained_run, reader=reader)
    return find(identity, what=what), settings
