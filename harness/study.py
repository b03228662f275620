"""Run a study: search hyperparameters, then confirm the best on the test set.

python -m harness.study NAME [--field value ...]
python -m harness.study lr_search --n-trials 20 --num-epochs 3
python -m harness.study NAME --help
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness.base import signals
from harness.cli import entry, flags, listing
from harness.cli.output import print_text
from harness.cli.recording import optional_recorder

USAGE = """\
usage: python -m harness.study NAME [--field value ...]
       python -m harness.study NAME --help    fields of its experiment, and the other flags

Runs a study, or goes on with it, and records every trial in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Run the study that the first argument names; return the exit status."""
    name, rest = listing.take_name("studies", arguments, USAGE)
    # The threads of OpenBLAS, which nothing here uses, would prevent a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with optional_recorder(rest) as recorder:
        # Libraries swallow an interruption in the middle of their import, and then fail.
        with signals.deferred():
            from harness.cli.study_flags import StudySettings
            from harness.search.study import load_study

            declared = load_study(name)
        experiment, settings = flags.parse(
            declared.experiment,
            StudySettings,
            rest,
            f"python -m harness.study {name}",
            listing.summary_of("studies", name),
        )
        request = settings.request(name, declared, experiment, forks=True)
        if recorder is None or settings.dry_run:
            from harness.cli.dry_run import study_dry_run

            print_text(study_dry_run(request))
            return 0
        with signals.deferred():
            from harness.cli.study_progress import answer_text, study_view
            from harness.workers.study_run import search_and_confirm

        answer, was_finished = search_and_confirm(request, recorder, study_view(settings.quiet))
    print_text(answer_text(answer, was_finished))
    return 0


if __name__ == "__main__":
    entry.enter(main)
