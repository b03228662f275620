"""Repeat a past run from its record, and compare every number.

python -m harness.verify RUN
python -m harness.verify RUN --threads 2 --tolerance 0.001
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from harness.base import signals
from harness.cli import entry, flags
from harness.tracking import store_address


def main(arguments: Sequence[str]) -> int:
    """Repeat a run; return 0 if the record holds and 1 if it does not."""
    from harness.cli.verify_flags import VerifySettings

    settings = flags.parse_settings(
        VerifySettings,
        arguments,
        "python -m harness.verify",
        "Train a recorded run, trial or confirmation again and compare every epoch's metrics, and "
        "the final weights, with the record. The original is not touched.",
    )
    store_address.check()
    store_address.check_run("verify", settings.run_id)
    # MLflow takes as long to import as torch: the recorder's process does it meanwhile.
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        recorder.prepare()
        stored = recorder.stored(
            settings.run_id
        )  # an unknown id is refused before torch is imported
        # Libraries swallow an interruption in the middle of their import, and then fail.
        with signals.deferred():
            from harness.cli import run_progress
            from harness.runs import verification
            from harness.runs.recovery import clear_up

        clear_up(recorder)
        verified = verification.verify(
            stored,
            recorder,
            run_progress.watcher(settings.quiet),
            device=settings.device,
            threads=settings.threads,
            data_root=settings.data_root,
        )
        verdict = verified.verdict(settings.tolerance, settings.exact)
        verified.report(recorder, verdict)
    print("\n".join(verified.lines(verdict)))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    entry.enter(main)
