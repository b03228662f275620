"""Run a study: search hyperparameters, then confirm the best on the test set.

python -m harness.study NAME [--field value ...]
python -m harness.study lr_search --n-trials 20 --num-epochs 3
python -m harness.study NAME --help
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from harness.base import project, signals
from harness.base.errors import BadRequest, RunFailed
from harness.cli import entry, flags, listing
from harness.tracking import store_address

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cli.study_flags import StudySettings
    from harness.search.storage import StoredStudy
    from harness.search.study import Study
    from harness.search.trial_queue import Search
    from harness.tracking.recorder_process import RecorderProcess
    from harness.training.experiment import Experiment

USAGE = """\
usage: python -m harness.study NAME [--field value ...]
       python -m harness.study NAME --help    fields of its experiment, and the other flags

Runs a study, or goes on with it, and records every trial in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Run the study that the first argument names; return the exit status."""
    name, rest = listing.choose("studies", arguments, USAGE)
    flags.refuse_repeated_flags(rest)
    store_address.check()
    if {"-h", "--help", "--dry-run"} & set(rest):
        return _run(name, rest, None)
    # Its threads, which are for nothing here, would stand in the way of a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # MLflow takes as long to import as torch: the recorder's process does it meanwhile.
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        return _run(name, rest, recorder)


def _run(name: str, arguments: list[str], recorder: RecorderProcess | None) -> int:
    # Libraries swallow an interruption in the middle of their import, and then fail.
    with signals.deferred():
        from harness.cli.study_flags import StudySettings
        from harness.search.study import load_study

    declared = load_study(name)
    experiment, settings = flags.parse(
        declared.experiment,
        StudySettings,
        arguments,
        f"python -m harness.study {name}",
        project.summary(project.ROOT / "studies" / f"{name}.py"),
    )
    from harness.search.storage import failures_told, storage_url

    with failures_told(storage_url(settings.storage)):
        return _carry_out(name, declared, experiment, settings, recorder)


def _carry_out(
    name: str,
    declared: Study,
    experiment: Experiment,
    settings: StudySettings,
    recorder: RecorderProcess | None,
) -> int:
    import dataclasses

    from harness.base.signals import Interrupted
    from harness.cli import study_progress
    from harness.runs import runner
    from harness.runs.recovery import clear_up
    from harness.search import trial_queue
    from harness.training.datasets import data_root
    from harness.training.device import choose
    from harness.workers import coordinator
    from harness.workers.local_pool import Crew
    from harness.workers.study_answer import configurations, result

    execution, workers = settings.execution_and_workers()
    device = choose(settings.device)
    root = data_root(settings.data_root)
    if recorder is None or settings.dry_run:
        execution.apply()
        search = _search(name, declared, experiment, settings, root)
        prepared = runner.prepare(search.study.experiment, root, with_test=False)
        print(study_progress.dry_run(search, prepared, execution, device, workers))
        return 0

    try:
        workers = min(workers, settings.n_trials or declared.n_trials)
        # First of all: what comes next starts threads, which no fork takes along.
        on_cpu = device.type == "cpu"
        with closing(Crew(workers, execution.threads, recorder, on_cpu=on_cpu)) as crew:
            execution.apply()
            search = _search(name, declared, experiment, settings, root)
            experiment = search.study.experiment
            prepared = runner.prepare(experiment, root, with_test=False)
            seeds = [
                dataclasses.replace(experiment, seed=experiment.seed + i).seed
                for i in range(settings.confirm_seeds)
            ]
            stored = _open(search, settings)
            ended = result(search, stored, seeds, str(device))
            if ended and ended.is_finished and ended.is_reported:
                print(
                    f"{search.study_name} has finished already; "
                    "a larger --n-trials goes on with it."
                )
                print(ended.on_screen())
                return 0
            recorder.prepare()
            clear_up(recorder)
            watcher = study_progress.watcher(settings.quiet)
            with coordinator.Launcher(search, stored, crew, recorder, watcher) as running:
                running.set_task(name, execution, str(root), settings.timeout)
                labels = runner.Labels(
                    kind="study",
                    name=search.study_name,
                    experiment=search.study_name,
                    user_tags={"harness.study": name},
                )
                running.begin(runner.run_record(prepared, execution, device, labels))
                running.search_trials()
                best = trial_queue.best(stored)
                if best and running.progress.counts.finished >= search.n_trials:
                    running.confirm(configurations(search, best), seeds)
        ended = result(search, stored, seeds, str(device))
        if ended is None:
            reason = f"No trial was completed ({running.progress.counts})."
            recorder.finish(running.run_id, "failed", tags={"reason": reason})
            raise RunFailed(reason)
        ended.report(recorder)
    except Interrupted:
        print(f"Stopped. Go on with the same command: {study_progress.again()}")
        raise
    print(ended.on_screen())
    if not ended.is_finished:
        print(f"Go on with the same command: {study_progress.again()}")
    return 0


def _open(search: Search, settings: StudySettings) -> StoredStudy:
    """The stored study, with the trials of dead processes back in its queue."""
    from harness.search import opening, trial_queue
    from harness.search.storage import lock

    stored = opening.open_study(search, settings.warm_start)
    with lock(search.url):
        trial_queue.repair(stored)
        trial_queue.forgive_failures(stored)
        if settings.release_trials:
            print(f"{trial_queue.release(stored)} trials of other machines are given back.")
        elif foreign := trial_queue.foreign(stored):
            print(
                f"{len(foreign)} trials are in the hands of other machines (or containers). "
                "If those have died: --release-trials"
            )
    return stored


def _search(
    name: str, declared: Study, experiment: Experiment, settings: StudySettings, root: Path
) -> Search:
    """What the command line makes of the declaration.

    Raises:
        BadRequest: the two do not fit together.
    """
    import dataclasses

    from harness.search.opening import budget
    from harness.search.storage import storage_url
    from harness.search.trial_queue import Search
    from harness.training.datasets import open_dataset

    if not experiment.validation_size:
        size = len(open_dataset(experiment.dataset, root, with_test=False).train)
        experiment = dataclasses.replace(experiment, validation_size=max(1, size // 6))
    search = Search(
        study=dataclasses.replace(declared, experiment=experiment),
        study_name=settings.study_name or name,
        url=storage_url(settings.storage),
        n_trials=settings.n_trials or declared.n_trials,
        sampler=settings.sampler,
        pruner=settings.pruner,
        sampler_seed=settings.sampler_seed,
    )
    if search.sampler == "grid" and not declared.space:
        raise BadRequest("sampler: a grid needs a study with a space, this one has suggest(trial).")
    return dataclasses.replace(search, n_trials=budget(search))


if __name__ == "__main__":
    entry.enter(main)
