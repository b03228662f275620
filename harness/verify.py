"""Repeat a past run from its record, and compare every number.

python -m harness.verify RUN
python -m harness.verify RUN --threads 2 --tolerance 0.001
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext

from harness.base import signals
from harness.cli import entry, flags
from harness.cli.output import print_text
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
    store_address.check_address()
    store_address.check_recorded("verify")
    from harness.tracking.messages import NoRecorder, OpenStore
    from harness.tracking.reader import open_reader
    from harness.tracking.recorder_process import RecorderProcess
    from harness.tracking.selection import trained_run

    # MLflow takes as long to import as torch: the recorder's process does it meanwhile.
    with (
        nullcontext(NoRecorder())
        if store_address.is_read_only()
        else closing(RecorderProcess()) as recorder
    ):
        reader = open_reader()
        stored = trained_run(settings.run_id, reader, "verify")
        # Libraries swallow an interruption in the middle of their import, and then fail.
        with signals.deferred():
            from harness.cli.run_progress import epochs_view
            from harness.execution.recovery import recover
            from harness.execution.verification import verify

        recorder.send(OpenStore())
        recover(recorder)
        verified = verify(
            stored,
            reader,
            recorder,
            lambda group: epochs_view(
                group, stored.fields.get("num_epochs", 0), quiet=settings.quiet
            ),
            device=settings.device,
            threads=settings.threads,
            root=settings.data_root,
            run_recorded_code=settings.run_recorded_code,
        )
        verdict = verified.verdict(settings.tolerance, settings.exact)
        verified.report(recorder, verdict)
    print_text("\n".join(verified.lines(verdict)))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    entry.enter(main)
