"""Send what a tracking server missed while it was away.

python -m harness.sync

Runs go on while their server is away; their records wait in mlruns/spool. Every command sends what
it finds there; this one does nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from harness.cli import entry, flags
from harness.tracking import store_address


def main(arguments: Sequence[str]) -> int:
    """Send, close the runs of dead processes, and print what is left; return the exit status."""
    flags.parse_settings(
        flags.NoSettings,
        arguments,
        "python -m harness.sync",
        "Send what a tracking server missed while it was away. MLFLOW_TRACKING_URI names it.",
    )
    store_address.check_address()
    from harness.execution.recovery import recover
    from harness.tracking.messages import RecoverRuns
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        recovered = recorder.send(RecoverRuns())
        recover(recorder)
    print(
        f"{store_address.described()}: {recovered.sent} writes sent, "
        f"{recovered.waiting} still waiting"
    )
    for run_id in recovered.elsewhere:
        print(
            f"{run_id} is recorded as running by a process of another machine or container.\n"
            f"If that has ended: python -m harness.run --resume {run_id} --take-over"
        )
    return 1 if recovered.waiting else 0


if __name__ == "__main__":
    entry.enter(main)
