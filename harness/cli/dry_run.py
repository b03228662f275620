"""What would be run: printed by `--dry-run`, before an hour is spent on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from harness.base.errors import RunFailed
from harness.base.formatting import number_of
from harness.cli.run_flags import RunSettings
from harness.execution.events import Ending
from harness.execution.failures import explained
from harness.execution.preparation import DataSource
from harness.execution.training_group import LocalGroup, TrainingTask
from harness.search.samplers import sampler_text
from harness.search.study import describe_space
from harness.tracking.store_address import described
from harness.training.builtin_datasets import data_root, on_disk
from harness.training.data_checks import shape_text
from harness.training.device import choose
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult, updates_per_epoch
from harness.training.misfits import built_network, check_fit
from harness.workers.study_run import StudyRequest

PUBLISHED_SIZE = 60_000
"""Training examples of a data set that is yet to be downloaded."""


def run_dry_run(experiment: Experiment, settings: RunSettings) -> str:
    """Fields, sizes and updates of a run, and where it would be recorded.

    Raises:
        BadRequest: something is wrong with the data, or they are too few.
        DataUnavailable: the experiment has its own data, and they are unavailable.
        RunFailed: the network cannot be built, or does not fit the data.
    """
    device = settings.execution().apply()
    root = data_root(settings.data_root)
    name = experiment.fields().get("dataset")
    try:
        network = built_network(experiment)
        parameters = sum(p.numel() for p in network.parameters())
    except Exception as error:
        raise explained(error, experiment) from error
    if name and not on_disk(name, root):
        size = PUBLISHED_SIZE - experiment.validation_size
        found = f"{PUBLISHED_SIZE:,} training examples, to be downloaded to {root}"
    else:
        # Without the test examples, if validation examples are set aside.
        prepared = DataSource(settings.data_root).prepare(
            experiment, with_test=not experiment.validation_size
        )
        check_fit(network, prepared.train)
        size = len(prepared.train)
        item = shape_text(prepared.train.item_shape)
        found = (
            f"{size:,} training examples of {item} and {len(prepared.evaluation):,} "
            f"{prepared.evaluated_on} examples of {prepared.dataset.name}"
        )
    batches = updates_per_epoch(experiment, size)
    return _listed(
        str(experiment),
        {
            **experiment.parameters(),
            **settings.execution().parameters(),
            "network": f"{parameters:,} parameters",
            "updates": f"{batches * experiment.num_epochs * settings.repeats:,} "
            f"({settings.repeats} x {experiment.num_epochs} epochs x {batches} batches)",
            "data": found,
            "computed on": str(device),
            "recorded in": described(),
        },
    )


def study_dry_run(request: StudyRequest) -> str:
    """The space and the budget of a study, and the time that one measured epoch lets one expect.

    Raises:
        BadRequest: the request does not fit the declaration.
        RunFailed: the epoch could not be trained.
    """
    execution, workers = request.execution, request.workers
    device = choose(execution.device)
    execution.apply()
    search = request.search()
    experiment = search.study.experiment
    data = request.data
    prepared = data.prepare(experiment, with_test=False)
    task = TrainingTask(experiment, with_test=False)
    seconds = _epoch_seconds(LocalGroup(data, execution, device), task)
    total = seconds * experiment.num_epochs * search.n_trials / workers
    space = describe_space(search.study)
    return _listed(
        search.study_name,
        {
            "experiment": str(experiment),
            **{f"search {name}": words for name, words in space.items()},
            "budget": (
                f"{search.n_trials} trials of {number_of(experiment.num_epochs, 'epoch')}, "
                "if none is pruned"
                + (f", each for {search.trial_timeout:g} s at most" if search.trial_timeout else "")
            ),
            "objective": ", ".join(f"{g.metric} ({g.direction})" for g in search.study.goals),
            "sampler": (
                f"{sampler_text(search.sampler)}, seed {search.sampler_seed}; "
                f"pruner {search.pruner}"
            ),
            "workers": f"{workers} with {execution.threads} threads on {device}",
            "examples": (
                f"{len(prepared.train):,} for training, {len(prepared.evaluation):,} for selection"
            ),
            "one epoch": f"{seconds:.2f} s, measured alone",
            "estimate": f"{total / 60:.1f} min, and the confirmation after it",
            "recorded in": described(),
        },
    )


def _epoch_seconds(group: LocalGroup, task: TrainingTask) -> float:
    group.begin(0, task)
    started = time.perf_counter()
    while True:
        for _, event in group.advance():
            match event:
                case EpochResult():
                    return time.perf_counter() - started
                case Ending(reason=reason):
                    raise RunFailed(reason)
                case _:
                    started = time.perf_counter()


def _listed(title: str, rows: Mapping[str, Any]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())])
