"""Run an experiment and record it.

python -m harness.run NAME [--field value ...]
python -m harness.run baseline --lr 0.05 --hidden-width 512
python -m harness.run NAME --help
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from harness.base import project, signals
from harness.base.errors import BadRequest
from harness.cli import entry, flags, listing
from harness.tracking import store_address

if TYPE_CHECKING:
    from harness.cli.run_flags import RunSettings
    from harness.tracking.recorder_process import RecorderProcess
    from harness.training.experiment import Experiment

USAGE = """\
usage: python -m harness.run NAME [--field value ...]
       python -m harness.run NAME --help      fields of an experiment, and the other flags
       python -m harness.run --resume RUN     goes on with a run that ended too early, or the last

Runs an experiment, prints every epoch and records all of it in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Run the experiment that the first argument names; return the exit status."""
    resuming = bool(arguments) and arguments[0].partition("=")[0] == "--resume"
    if resuming:
        flags.refuse_repeated_flags(arguments)
        name, *rest = arguments
        _, equals, run_id = name.partition("=")
        if not equals:
            run_id = rest[0] if rest else ""
        store_address.check_run("resume", run_id, "last", "-h", "--help")
    else:
        name, rest = listing.choose("experiments", arguments, USAGE)
        flags.refuse_repeated_flags(rest)
    store_address.check()
    if not resuming and {"-h", "--help", "--dry-run"} & set(rest):
        return _run(name, rest, None)
    # MLflow takes as long to import as torch: the recorder's process does it meanwhile.
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        if resuming:
            with signals.deferred():
                from harness.runs import resume

            return resume.main(arguments, recorder)
        return _run(name, rest, recorder)


def _run(name: str, arguments: list[str], recorder: RecorderProcess | None) -> int:
    # Libraries swallow an interruption in the middle of their import, and then fail.
    with signals.deferred():
        from harness.cli import run_progress
        from harness.cli.run_flags import RunSettings
        from harness.runs import runner
        from harness.runs.recovery import clear_up
        from harness.training.experiment import load_experiment

    experiment_class = load_experiment(name)
    experiment, settings = flags.parse(
        experiment_class,
        RunSettings,
        arguments,
        f"python -m harness.run {name}",
        project.summary(project.ROOT / "experiments" / f"{name}.py"),
    )
    execution = settings.execution()
    device = execution.apply()
    # The last of the seeds: it may be out of bounds.
    dataclasses.replace(experiment, seed=experiment.seed + settings.repeats - 1)
    if recorder is None or settings.dry_run:
        print(_dry_run(experiment, settings, str(device)))
        return 0
    prepared = runner.prepare(experiment, settings.data_root, settings.fallback)
    recorder.prepare()
    clear_up(recorder)
    if prepared.fallback_from and not settings.quiet:
        print(
            f"{prepared.fallback_from} cannot be had here: training on "
            f"{prepared.experiment.dataset} instead, as --fallback allows."
        )
    labels = settings.labels()
    watcher = run_progress.watcher(settings.quiet)
    if settings.repeats == 1:
        result = runner.run(prepared, execution, device, recorder, watcher, labels)
        results, run_id = [result], result.run_id
        print(run_progress.summary(result, prepared))
    else:
        seeds = range(experiment.seed, experiment.seed + settings.repeats)
        run_id, results, summaries = runner.repeat(
            prepared, seeds, execution, device, recorder, watcher, labels
        )
        print(run_progress.group_summary(results, summaries, prepared))
    print(f"run {run_id}\nsee it with: python -m harness.ui")
    return 1 if any(result.outcome == "diverged" for result in results) else 0


def _dry_run(experiment: Experiment, settings: RunSettings, device: str) -> str:
    """What would be run: fields, sizes, updates, and where it would be recorded."""
    from harness.runs.runner import failure
    from harness.tracking.store_address import described
    from harness.training.datasets import data_root, on_disk, open_dataset

    root = data_root(settings.data_root)
    available = on_disk(experiment.dataset, root)
    size = len(open_dataset(experiment.dataset, root).train) if available else 60_000
    if experiment.validation_size >= size:
        raise BadRequest(
            f"validation_size: {experiment.validation_size} leaves none of {size} training images."
        )
    batches = math.ceil((size - experiment.validation_size) / experiment.batch_size)
    try:
        parameters = sum(p.numel() for p in experiment.network().parameters())
    except Exception as error:
        raise failure(experiment, error) from error
    found = "on disk" if available else f"to be downloaded to {root}"
    rows = {
        **experiment.parameters(),
        **settings.execution().parameters(),
        "network": f"{parameters:,} parameters",
        "updates": f"{batches * experiment.num_epochs * settings.repeats:,} "
        f"({settings.repeats} x {experiment.num_epochs} epochs x {batches} batches)",
        "data": f"{size:,} training images, {found}",
        "computed on": device,
        "recorded in": described(),
    }
    width = max(map(len, rows))
    return "\n".join([str(experiment), *(f"  {k:<{width}}  {v}" for k, v in rows.items())])


if __name__ == "__main__":
    entry.enter(main)
