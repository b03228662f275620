"""Run an experiment and record it.

python -m harness.run NAME [--field value ...]
python -m harness.run baseline --lr 0.05 --hidden-width 512
python -m harness.run NAME --help
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from harness.base import signals
from harness.cli import entry, flags, listing
from harness.tracking import store_address
from harness.tracking.recorder_process import RecorderProcess

if TYPE_CHECKING:
    from harness.execution.launch import GroupResult, RunResult

USAGE = """\
usage: python -m harness.run NAME [--field value ...]
       python -m harness.run NAME --help      fields of an experiment, and the other flags
       python -m harness.run --resume RUN     goes on with a run that ended too early, or the last

Runs an experiment, prints every epoch and records all of it in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Run the experiment that the first argument names; return the exit status."""
    if arguments and arguments[0].partition("=")[0] == "--resume":
        return _resume(arguments)
    name, rest = listing.take_name("experiments", arguments, USAGE)
    flags.refuse_repeated_flags(rest)
    store_address.check_address()
    if {"-h", "--help", "--dry-run"} & set(rest):
        return _run(name, rest, None)
    # MLflow takes as long to import as torch: the recorder's process does it meanwhile.
    with closing(RecorderProcess()) as recorder:
        return _run(name, rest, recorder)


def _run(name: str, arguments: list[str], recorder: RecorderProcess | None) -> int:
    # Libraries swallow an interruption in the middle of their import, and then fail.
    with signals.deferred():
        from harness.cli.run_flags import RunSettings
        from harness.training.experiment import load_experiment

        experiment_class = load_experiment(name)
    experiment, settings = flags.parse(
        experiment_class,
        RunSettings,
        arguments,
        f"python -m harness.run {name}",
        listing.summary_of("experiments", name),
    )
    if recorder is None or settings.dry_run:
        from harness.cli.dry_run import run_dry_run

        print(run_dry_run(experiment, settings))
        return 0
    with signals.deferred():
        from harness.cli.experiment_run import run_as_asked

    return _report(run_as_asked(experiment, settings, recorder))


def _resume(arguments: Sequence[str]) -> int:
    from harness.cli.resume_flags import ResumeFlags
    from harness.tracking.reader import open_reader

    settings = flags.parse_settings(
        ResumeFlags, arguments, "python -m harness.run", "Go on with a run that ended too early."
    )
    store_address.check_recorded("resume")
    stored = open_reader().find(settings.resume, "resume")
    with closing(RecorderProcess()) as recorder:
        with signals.deferred():
            from harness.cli.experiment_run import resume_as_asked

        return _report(resume_as_asked(stored, settings, recorder))


def _report(result: RunResult | GroupResult) -> int:
    from harness.cli.run_progress import summary

    print(f"{summary(result)}\nrun {result.run_id}\nsee it with: python -m harness.ui")
    return 1 if result.has_diverged else 0


if __name__ == "__main__":
    entry.enter(main)
