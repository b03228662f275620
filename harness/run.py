"""Run an experiment and record it.

python -m harness.run NAME [--field value ...]
python -m harness.run baseline --lr 0.05 --hidden-width 512
python -m harness.run NAME --help
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.base import signals
from harness.base.errors import BadRequest
from harness.cli import entry, flags, listing
from harness.cli.output import print_text
from harness.cli.recording import optional_recorder, recorder_process

USAGE = """\
usage: python -m harness.run NAME [--field value ...]
       python -m harness.run NAME --help      fields of an experiment, and the other flags
       python -m harness.run --resume RUN     goes on with a run that ended too early, or the last
       python -m harness.run --continue RUN --num-epochs N    trains a completed run further

Runs an experiment, prints every epoch and records all of it in MLflow."""


GOING_ON = ("--resume", "--continue")


def main(arguments: Sequence[str]) -> int:
    """Run the experiment that the first argument names; return the exit status."""
    if arguments and arguments[0].partition("=")[0] in GOING_ON:
        return _go_on(arguments)
    name, rest = listing.take_name("experiments", arguments, USAGE)
    for flag in (word.partition("=")[0] for word in rest):
        if flag in GOING_ON:
            raise BadRequest(f"{flag} takes no experiment: python -m harness.run {flag} RUN")
    with optional_recorder(rest) as recorder:
        # Libraries swallow an interruption in the middle of their import, and then fail.
        with signals.deferred():
            from harness.cli.experiment_run import report_run, run_as_asked
            from harness.cli.run_flags import RunSettings
            from harness.training.experiment import load_experiment

            experiment_class = load_experiment(name)
        experiment, settings = flags.parse(
            experiment_class,
            RunSettings,
            rest,
            f"python -m harness.run {name}",
            listing.summary_of("experiments", name),
        )
        if recorder is None or settings.dry_run:
            from harness.cli.dry_run import run_dry_run

            print_text(run_dry_run(experiment, settings))
            return 0
        return report_run(run_as_asked(experiment, settings, recorder))


def _go_on(arguments: Sequence[str]) -> int:
    from harness.cli.resume_flags import go_on_with

    stored, settings = go_on_with(arguments)
    with recorder_process() as recorder:
        with signals.deferred():
            from harness.cli.experiment_run import report_run, resume_as_asked

        return report_run(resume_as_asked(stored, settings, recorder))


if __name__ == "__main__":
    entry.enter(main)
