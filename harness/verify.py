"""Repeat a past run from its record, and compare every number.

python -m harness.verify RUN_ID
python -m harness.verify RUN_ID --threads 2 --tolerance 0.001
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from harness.base import fields, signals
from harness.base.errors import BadRequest
from harness.base.fields import NonNegative, Positive
from harness.cli import flags

if TYPE_CHECKING:
    from harness.tracking.recorder_process import RecorderProcess

USAGE = """\
usage: python -m harness.verify RUN_ID [--threads N] [--tolerance X] [--exact]
       python -m harness.verify --help        all flags

Trains a recorded run, trial or confirmation anew and compares every epoch's losses and accuracies,
and the final weights, with the record. The original is not touched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """Where to repeat the run, and how to judge."""

    device: str | None = None
    """Device to repeat it on; the recorded one, or else the best of this machine, unless given."""
    threads: Annotated[int | None, NonNegative] = None
    """Threads of torch on the CPU; as many as recorded unless given."""
    exact: bool = False
    """Demand equal bits even where device, threads, versions or precision differ."""
    tolerance: Annotated[float, Positive] = 0.01
    """Largest difference of a loss (relative where it is above 1) or accuracy that is accepted
    where bits cannot be equal."""
    data_root: Path | None = None
    """Folder of the data sets; HARNESS_DATA_ROOT, or data in the project, unless given."""
    quiet: bool = False
    """Print the verdict only."""

    def __post_init__(self) -> None:
        fields.check_all(self)


def main(arguments: Sequence[str]) -> int:
    """Repeat the run that the first argument names; 0 where the record holds, 1 where not."""
    if not arguments:
        print(USAGE)
        return 2
    run_id, rest = (
        (None, arguments) if arguments[0].startswith("-") else (arguments[0], arguments[1:])
    )
    settings = flags.parse_settings(
        VerifySettings, rest, "python -m harness.verify RUN_ID", USAGE.partition("\n\n")[2]
    )
    if run_id is None:
        raise BadRequest(
            f"verify: name the run first: python -m harness.verify RUN_ID {arguments[0]}"
        )
    from harness.tracking import store_address

    store_address.check()
    store_address.check_run("verify", run_id)
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        recorder.prepare()
        return _verify(run_id, settings, recorder)


def _verify(run_id: str, settings: VerifySettings, recorder: RecorderProcess) -> int:
    from harness.tracking.reader import open_reader

    reader = open_reader()
    stored = reader.find(run_id, "verify")  # before torch is imported: it may be the wrong one
    history: dict[int, dict[str, float]] = {}
    for _, epoch, metric, value in reader.history([stored.run_id]):
        if metric.startswith(("train/", "test/", "validation/")):
            history.setdefault(epoch, {})[metric] = value
    # Libraries swallow an interruption in the middle of their import, and then fail.
    with signals.deferred():
        from harness.cli import run_progress
        from harness.runs import verification
        from harness.runs.recovery import clear_up

    clear_up(recorder)
    verified = verification.verify(
        stored,
        history,
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
    flags.enter(main)
