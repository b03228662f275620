"""Runs an experiment: data opened, training watched, every epoch saved and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from harness.base import project, provenance
from harness.base.errors import BadRequest, RunFailed
from harness.base.formatting import number_of
from harness.base.ownership import Owner
from harness.base.privacy import mask
from harness.base.project import MLRUNS, ROOT, peak_memory_bytes
from harness.base.signals import Interrupted, deferred, raise_again
from harness.base.statistics import Summary, summarize
from harness.tracking.schema import (
    DataRecord,
    FiguresRecord,
    Kind,
    ModelRecord,
    Outcome,
    Recorder,
    RunRecord,
    StoredRun,
)
from harness.training import checkpoint
from harness.training.datasets import CLASS_NAMES, DataUnavailable, Images, data_root, open_dataset
from harness.training.device import Execution, describe
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult, EvaluationSet, Training
from harness.training.network_export import export
from harness.training.predictions import inspect

CHECKPOINTS_KEPT = 2
"""The latest one, and one before it in case the latest turns out to be damaged."""


@dataclass(frozen=True)
class Saving:
    """How often a training's whole state is saved, and how much of that is kept.

    Attributes:
        every: epochs from one checkpoint to the next; the last epoch always has one.
        keep: how many of the latest stay on disk.
    """

    every: int = 1
    keep: int = CHECKPOINTS_KEPT


@dataclass(frozen=True)
class Prepared:
    """An experiment with the images it trains and is evaluated on, ready to run.

    Attributes:
        fallback_from: the data set that was asked for, where another one stands in for it.
    """

    experiment: Experiment
    train: Images
    evaluation: Images
    evaluated_on: EvaluationSet
    fallback_from: str | None = None

    def data_records(self) -> tuple[DataRecord, ...]:
        """Digests and sizes of the sets that the run sees."""
        name = self.experiment.dataset
        return tuple(
            DataRecord(name, context, images.digest, len(images))
            for context, images in (("training", self.train), (self.evaluated_on, self.evaluation))
        )


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        epochs: the results of all epochs, in order.
        seconds: wall time of the training, its record, its figures and its model; of a resumed
            run, since it was resumed.
        weights_sha256: digest of the final weights; see `Training.weights_digest`.
    """

    experiment: Experiment
    run_id: str
    outcome: Outcome
    epochs: tuple[EpochResult, ...]
    seconds: float
    device: str
    weights_sha256: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last epoch; empty where there was none."""
        return self.epochs[-1].metrics if self.epochs else {}


class Watcher(Protocol):
    """Whoever looks on: the screen."""

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over, and recorded."""

    def stopped(self) -> None:
        """The training is over, one way or another."""


@dataclass(frozen=True)
class Labels:
    """What a run is called and where it belongs.

    Attributes:
        experiment: MLflow's experiment; that of the harness unless given.
        parent: id of the run that this one belongs to.
        figures: whether to draw them after training.
        links: tags of the harness's own, without their prefix.
        command: the command line that repeats it, as `sys.argv` gives it.
    """

    kind: Kind = "run"
    name: str | None = None
    experiment: str | None = None
    parent: str | None = None
    user_tags: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    system_metrics: bool = False
    figures: bool = True
    saving: Saving = Saving()
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))


def prepare(
    experiment: Experiment,
    root: Path | None,
    fallback: Literal["digits"] | None = None,
    *,
    with_test: bool = True,
) -> Prepared:
    """Open the experiment's data, or the fallback's where it cannot be had, and split it.

    Without `with_test` the test images are not read, and the experiment needs a validation set.

    Raises:
        DataUnavailable: the data cannot be had, and no fallback was allowed.
        BadRequest: the data set is too small for the experiment's `validation_size`.
    """
    fallback_from = None
    try:
        dataset = open_dataset(experiment.dataset, data_root(root), with_test=with_test)
    except DataUnavailable:
        if fallback is None:
            raise
        fallback_from = experiment.dataset
        experiment = dataclasses.replace(experiment, dataset=fallback)
        dataset = open_dataset(fallback, data_root(root), with_test=with_test)
    train, validation = dataset.split(experiment.validation_size, experiment.split_seed)
    if experiment.validation_size:
        return Prepared(experiment, train, validation, "validation", fallback_from)
    if not with_test:
        raise BadRequest("validation_size: a study needs validation images, it must be at least 1.")
    return Prepared(experiment, train, dataset.test, "test", fallback_from)


def training(
    prepared: Prepared,
    execution: Execution,
    device: torch.device,
    *,
    evaluate_each_epoch: bool = True,
) -> Training:
    """The training of a prepared experiment, at its beginning.

    Raises:
        RunFailed: the network cannot be built, or does not fit into the device's memory.
    """
    try:
        return Training(
            prepared.experiment,
            prepared.train,
            prepared.evaluation,
            prepared.evaluated_on,
            execution,
            device,
            evaluate_each_epoch,
        )
    except Exception as error:
        raise failure(prepared.experiment, error) from error


def run(
    prepared: Prepared,
    execution: Execution,
    device: torch.device,
    recorder: Recorder,
    watcher: Watcher,
    labels: Labels | None = None,
    *,
    evaluate_each_epoch: bool = True,
) -> RunResult:
    """Train one experiment and record it, epoch by epoch.

    Each epoch is saved, then recorded, before the next one is trained. Only what is of kind `run`
    is saved, and leaves a model and figures. Without `evaluate_each_epoch` the evaluation images
    are looked at once, after the last epoch.

    Raises:
        RunFailed: the training or its record went wrong; the run is recorded as failed.
        Interrupted: the run is recorded as interrupted.
    """
    labels = labels or Labels()
    state = training(prepared, execution, device, evaluate_each_epoch=evaluate_each_epoch)
    opened = time.perf_counter()
    run_id = recorder.start(run_record(prepared, execution, device, labels))
    store_seconds = time.perf_counter() - opened
    return _train(
        prepared,
        state,
        run_id,
        recorder,
        watcher,
        command=provenance.command(labels.command),
        with_figures=labels.figures,
        with_model=labels.kind == "run",
        resumable=labels.kind == "run" and labels.parent is None,
        saving=labels.saving,
        store_seconds=store_seconds,
    )


def resume(
    stored: StoredRun,
    prepared: Prepared,
    execution: Execution,
    device: torch.device,
    recorder: Recorder,
    watcher: Watcher,
    allowed: Sequence[str] = (),
    recorded: Collection[int] = (),
    is_described: bool = True,
) -> RunResult:
    """Go on with a run from its last whole checkpoint, to the numbers of one never interrupted.

    The epochs that the checkpoint knows and the record lacks are recorded first; none is twice.
    `allowed` names what has changed since the run began: it is recorded.

    Raises:
        RunFailed, Interrupted: as `run` does.
    """
    state = training(prepared, execution, device)
    for path in checkpoint.latest_first(MLRUNS / "checkpoints" / stored.run_id):
        try:
            saved = checkpoint.load(path)
        except checkpoint.CheckpointDamaged as damage:
            warnings.warn(f"{damage} Going on from the one before.", stacklevel=2)
            continue
        try:
            state.restore(saved)
        except Exception as error:  # an allowed change may have made another network of it
            raise failure(prepared.experiment, error) from error
        break
    labels = Labels(settings=stored.settings)
    record = None if is_described else run_record(prepared, execution, device, labels)
    recorder.resume(stored.run_id, str(Owner.current()), allowed, record)
    for result in state.history:
        if result.epoch not in recorded:
            recorder.epoch(stored.run_id, result.epoch, result.metrics)
    return _train(
        prepared,
        state,
        stored.run_id,
        recorder,
        watcher,
        command=stored.command,
        with_figures=stored.settings.get("figures", True),
        with_model=True,
        resumable=True,
        saving=Saving(
            stored.settings.get("checkpoint_every", 1),
            stored.settings.get("keep_checkpoints", CHECKPOINTS_KEPT),
        ),
        recorded=recorded,
    )


def _train(
    prepared: Prepared,
    state: Training,
    run_id: str,
    recorder: Recorder,
    watcher: Watcher,
    *,
    command: str,
    with_figures: bool,
    with_model: bool,
    resumable: bool,
    saving: Saving,
    store_seconds: float = 0.0,
    recorded: Collection[int] = (),
) -> RunResult:
    """Train what is left, save and record each epoch, and end the run."""
    experiment, device = prepared.experiment, state.device
    folder = MLRUNS / "checkpoints" / run_id
    started = time.perf_counter()
    saving_seconds = record_seconds = 0.0
    ended: RunResult | None = None
    try:
        watcher.started(state, run_id)
        for result in state.epochs():
            epoch_over = time.perf_counter()
            with deferred():
                last = result.epoch == experiment.num_epochs
                # What is no run of its own is repeated, not resumed.
                if with_model and (last or result.epoch % saving.every == 0):
                    checkpoint.save(checkpoint.path_of(folder, result.epoch), state.state())
                    checkpoint.prune(folder, saving.keep)
                saved = time.perf_counter()
                if result.epoch not in recorded:
                    recorder.epoch(run_id, result.epoch, result.metrics)
                saving_seconds += saved - epoch_over
                record_seconds += time.perf_counter() - saved
            watcher.epoch(result)
            raise_again()
        outcome: Outcome = "diverged" if state.diverged else "completed"
        with deferred():
            digest = state.weights_digest()
            model_seconds, tags = 0.0, {"weights_sha256": digest}
            if outcome == "completed" and with_model:
                try:
                    if with_figures:
                        # The recorder draws while the network is exported here.
                        recorder.figures(run_id, _figures_record(prepared, state))
                    model_seconds = _log_model(state, recorder, run_id)
                except Exception as error:  # the numbers are whole without figures and model
                    tags["incomplete"] = str(failure(experiment, error))
                    warnings.warn(f"no model or figures: {tags['incomplete']}", stacklevel=2)
            seconds = time.perf_counter() - started
            whole = RunResult(
                experiment, run_id, outcome, tuple(state.history), seconds, str(device), digest
            )
            recorder.finish(
                run_id,
                outcome,
                epoch=len(state.history),
                metrics={
                    "time/store_seconds": store_seconds,
                    "time/checkpoint_seconds": saving_seconds,
                    "time/record_seconds": record_seconds,
                    "time/model_seconds": model_seconds,
                    "time/total_seconds": seconds,
                    "memory/process_peak_bytes": peak_memory_bytes(),
                },
                tags=tags,
                description=_description(whole, prepared, command),
            )
            ended = whole
    except (Interrupted, KeyboardInterrupt) as interruption:
        if ended:  # it came while the last words were written, and there is nothing left to stop
            raise
        recorder.finish(run_id, "interrupted", tags={"reason": repr(interruption)})
        if resumable:
            watcher.stopped()
            print(
                f"Stopped after {number_of(len(state.history), 'epoch')}. "
                f"Go on: python -m harness.run --resume {run_id}"
            )
        raise
    except BaseException as error:
        if ended:
            raise
        described = failure(experiment, error)
        with contextlib.suppress(RunFailed):  # as on a full disk, which is what there is to tell
            recorder.artifacts(run_id, {"error.txt": _traceback(error).encode()})
        with contextlib.suppress(RunFailed):
            recorder.finish(run_id, "failed", tags={"reason": str(described)})
        if resumable and state.history and isinstance(described, RunFailed):
            raise RunFailed(
                f"{described}\nOnce that is mended, go on: python -m harness.run --resume {run_id}"
            ) from error
        if described is error:
            raise
        raise described from error
    finally:
        watcher.stopped()
    return ended


def repeat(
    prepared: Prepared,
    seeds: Sequence[int],
    execution: Execution,
    device: torch.device,
    recorder: Recorder,
    watcher: Watcher,
    labels: Labels | None = None,
) -> tuple[str, list[RunResult], dict[str, Summary]]:
    """Run an experiment once for each seed, as children of one group run.

    Returns:
        The group's id, the runs' results, and a summary of each final metric over the seeds.
    """
    labels = labels or Labels()
    record = run_record(prepared, execution, device, labels)
    experiment = prepared.experiment
    unseeded = dataclasses.replace(experiment, seed=type(experiment).seed)
    shared = labels.name or unseeded.label()
    group = dataclasses.replace(
        record,
        kind="group",
        name=f"{shared} x{len(seeds)}",
        parameters={**record.parameters, "seed": f"{seeds[0]}..{seeds[-1]}"},
    )
    group_id = recorder.start(group)
    results = []
    try:
        for seed in seeds:
            seeded = dataclasses.replace(
                prepared, experiment=dataclasses.replace(prepared.experiment, seed=seed)
            )
            child = dataclasses.replace(labels, name=f"{shared} seed={seed}", parent=group_id)
            results.append(run(seeded, execution, device, recorder, watcher, child))
    except BaseException as error:
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        recorder.finish(group_id, "interrupted" if interrupted else "failed")
        raise
    summaries = {
        name: summarize([result.metrics[name] for result in results]) for name in results[0].metrics
    }
    diverged = any(result.outcome == "diverged" for result in results)
    recorder.finish(
        group_id,
        "diverged" if diverged else "completed",
        epoch=experiment.num_epochs,
        metrics={
            key: value
            for name, summary in summaries.items()
            for key, value in (summary.metrics(name) | {name: summary.mean}).items()
        },
        description="\n".join(
            [f"**{unseeded}**, seeds {seeds[0]} to {seeds[-1]}, on {device}:", ""]
            + [f"- {name}: {summary}" for name, summary in summaries.items()]
            + ["", "Repeat it with:", "", f"    {provenance.command(labels.command)}"]
        ),
    )
    return group_id, results, summaries


def run_record(
    prepared: Prepared, execution: Execution, device: torch.device, labels: Labels
) -> RunRecord:
    """Everything about a run that is known before its first epoch."""
    experiment = prepared.experiment
    fallback = prepared.fallback_from
    return RunRecord(
        experiment=labels.experiment or experiment.name,
        name=labels.name or experiment.label(),
        kind=labels.kind,
        parameters=experiment.parameters() | execution.parameters(),
        fields=experiment.fields(),
        tags={
            **describe(device),
            "owner": str(Owner.current()),
            "experiment_sha256": experiment.source_digest(),
            **({"fallback_from": fallback} if fallback else {}),
            **labels.links,
        },
        data=prepared.data_records(),
        settings=labels.settings,
        command=labels.command,
        about=_about(experiment, labels),
        parent=labels.parent,
        user_tags=labels.user_tags,
        system_metrics=labels.system_metrics,
        trained=experiment.name,
    )


def _about(experiment: Experiment, labels: Labels) -> str:
    """The experiment or study in Markdown: what it is, and how to run it; "" for a child."""
    if labels.parent:
        return ""
    folder, door, file = "experiments", "run", experiment.name
    if labels.kind == "study":
        folder, door, file = "studies", "study", labels.user_tags["harness.study"]
    path = ROOT / folder / f"{file}.py"
    if not path.is_file():  # an experiment of a notebook
        return ""
    name = shlex.quote(labels.experiment or file)
    return "\n".join(
        [
            project.summary(path),
            "",
            f"Declared in `{folder}/{file}.py`. To run it, and to have a report of it:",
            "",
            f"    python -m harness.{door} {file}",
            f"    python -m harness.report {name}",
        ]
    )


def _figures_record(prepared: Prepared, state: Training) -> FiguresRecord:
    dataset = prepared.experiment.dataset
    return FiguresRecord(
        title=str(prepared.experiment),
        dataset=dataset,
        class_names=CLASS_NAMES[dataset],
        history=[(result.epoch, result.metrics) for result in state.history],
        inspection=inspect(state),
    )


def _log_model(training: Training, recorder: Recorder, run_id: str) -> float:
    """Export the network and log it; return the seconds of both."""
    started = time.perf_counter()
    # Two images, so that the batch size stays free; the same one twice where there is but one.
    positions = torch.arange(2, device=training.device) % len(training.train_images)
    example, _ = training.train_images.batch(positions)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        export(training.network, example, path)
        exported = time.perf_counter() - started
        record = ModelRecord(
            path, str(torch.__version__), example.cpu().tolist(), len(training.history)
        )
        return exported + recorder.model(run_id, record)


def _description(result: RunResult, prepared: Prepared, command: str) -> str:
    """The run in Markdown: what, result, how to repeat."""
    experiment = prepared.experiment
    lines = [
        f"**{experiment}** on {experiment.dataset} "
        f"({len(prepared.train):,} training images), {result.device}, "
        f"{torch.get_num_threads()} CPU threads: **{result.outcome}** after "
        f"{len(result.epochs)} of {experiment.num_epochs} epochs.",
        "",
        "| set | loss | accuracy | images |",
        "| --- | --- | --- | --- |",
    ]
    for name, images in (("train", prepared.train), (prepared.evaluated_on, prepared.evaluation)):
        if f"{name}/loss" not in result.metrics:
            continue
        loss, accuracy = (result.metrics[f"{name}/{kind}"] for kind in ("loss", "accuracy"))
        lines.append(f"| {name} | {loss:.4f} | {accuracy:.4f} | {len(images):,} |")
    lines += ["", "n = 1 seed. Repeat it with:", "", f"    {command}"]
    return "\n".join(lines)


def _traceback(error: BaseException) -> str:
    """An error with the way to it, from the project's root: a record names no folder of a user."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-2:])
        lines.append(f"{place}, line {frame.lineno}, in {frame.name}\n    {frame.line}")
    return mask("\n".join([*lines, f"{type(error).__name__}: {error}\n"]))


def failure(experiment: Experiment, error: BaseException) -> BaseException:
    """An error of the experiment's own code in one line, with its place; others as they are."""
    if isinstance(error, (BadRequest, RunFailed)) or not isinstance(error, Exception):
        return error
    text = str(error).partition("\n")[0]
    # On the CPU, torch raises a plain RuntimeError.
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        smaller = max(1, experiment.batch_size // 2)
        tried = re.search(r"tried to allocate [\d.]+ \w+", text, re.IGNORECASE)
        amount = f" ({tried[0].lower()})" if tried else ""
        return RunFailed(
            f"Out of memory with batch_size {experiment.batch_size}{amount}.\n"
            f"Try --batch-size {smaller}, or a smaller network."
        )
    if isinstance(error, BrokenPipeError):
        return RunFailed("Its output was closed: nobody reads what it prints any more.")
    place = traceback.extract_tb(error.__traceback__)[-1]
    return RunFailed(
        f"{experiment.name} failed: {type(error).__name__}: {text} "
        f"({Path(place.filename).name}, line {place.lineno})"
    )
