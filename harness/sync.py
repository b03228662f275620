"""Send what a tracking server could not take, now that it is back.

python -m harness.sync

Runs go on while their server is away: what it should have recorded waits in mlruns/spool. Every
command sends what it finds there; this one does nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from harness.cli import flags


@dataclass(frozen=True, kw_only=True)
class SyncSettings:
    """Nothing to choose: the server is the one of MLFLOW_TRACKING_URI."""


def main(arguments: Sequence[str]) -> int:
    """Send, close the runs of dead processes, and say what is left; return the exit status."""
    flags.parse_settings(
        SyncSettings,
        arguments,
        "python -m harness.sync",
        "Send what a tracking server could not take, now that it is back.",
    )
    from harness.tracking import store_address

    store_address.check()
    from harness.runs.recovery import clear_up
    from harness.tracking.messages import RecoverRuns
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        recovered = recorder.send(RecoverRuns())
        clear_up(recorder)
    print(
        f"{store_address.described()}: {recovered.sent} writes sent, "
        f"{recovered.waiting} still waiting"
    )
    return 1 if recovered.waiting else 0


if __name__ == "__main__":
    flags.enter(main)
