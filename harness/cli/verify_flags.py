"""The flags of `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from harness.base import fields
from harness.base.fields import Positive, Threads
from harness.cli.shared_flags import DataFlags, RecordedCodeFlag, default


@dataclass(frozen=True, kw_only=True)
class VerifySettings(DataFlags, RecordedCodeFlag):
    """Which run to repeat, how, and how strictly to judge."""

    run_id: Annotated[Positional[str], arg(metavar="RUN")]
    """Id of a run, trial or confirmation, or last for the latest completed run."""
    device: Annotated[
        str | None, default("DEVICE", "the recorded one, or the best of this machine")
    ] = None
    """Device to train on."""
    threads: Annotated[int | None, Threads, default("INT", "as recorded")] = None
    """CPU threads of torch."""
    exact: bool = False
    """Demand equal bits even if device, threads, versions or precision differ."""
    tolerance: Annotated[float, Positive] = 0.01
    """Largest accepted difference of a metric if bits may differ; relative for values above 1."""
    quiet: bool = False
    """Print the verdict only."""

    def __post_init__(self) -> None:
        fields.check_all(self)
