"""Going on with a run: to its end, or as a new run beyond it."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.base import project
from harness.base.command_line import repeatable
from harness.base.errors import BadRequest
from harness.base.formatting import number_of
from harness.base.goals import usual_goal
from harness.execution.callbacks import RecordLongerRun, RecordResumedRun
from harness.execution.changes import OWN_CODE, Change, changes_since
from harness.execution.descriptions import describe_run
from harness.execution.driver import Callback
from harness.execution.launch import RunResult, drive_run, driven_run
from harness.execution.preparation import DataSource, Prepared
from harness.execution.recorded_code import recorded_experiment
from harness.execution.specification import CHECKPOINTS_KEPT, RunSpecification
from harness.execution.trained_network import starting_weights
from harness.execution.training_group import LocalGroup, TrainingGroup
from harness.tracking.messages import Recorder
from harness.tracking.reader import Reader
from harness.tracking.schema import ENDED, AllowedChange, StoredRun
from harness.tracking.selection import OF_STUDIES
from harness.training import checkpoint
from harness.training.device import Execution, describe
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult
from harness.training.rehearsal import rehearse


def resume(
    stored: StoredRun,
    reader: Reader,
    recorder: Recorder,
    view: Callable[[TrainingGroup], Callback],
    *,
    allow: Sequence[AllowedChange] = (),
    root: Path | None = None,
    take_over: bool = False,
    run_recorded_code: bool = False,
) -> RunResult:
    """Go on with a run from its last whole checkpoint, to the numbers of one never interrupted.

    The epochs that the checkpoint knows and the record lacks are recorded first; none is recorded
    twice.

    Args:
        view: shows the training of a group.
        allow: what may have changed since the run began: it is recorded.
        take_over: go on although it cannot be told from here whether the run's process lives.
        run_recorded_code: see `recorded_experiment`.

    Raises:
        BadRequest: the run cannot go on, or something has changed that is not allowed.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    _refuse_what_cannot_go_on(stored, reader, take_over=take_over)
    experiment = recorded_experiment(stored, reader, "resume", run_recorded_code=run_recorded_code)
    setting = _prepared(stored, reader, experiment, "resume", allow, root)
    specification = _specification(stored, stored.command_words, root)
    record = RecordResumedRun(
        stored,
        frozenset(epoch for _, epoch, _, _ in reader.history([stored.run_id])),
        recorder,
        specification,
        experiment,
        setting.execution,
        allowed=setting.changed,
        is_described=reader.artifact(stored.run_id, "experiment.json") is not None,
        describe=describe_run,
    )
    state, history = _last_state(stored, setting, keep_best=specification.keep_best)
    driven = driven_run(
        record,
        setting.group,
        view(setting.group),
        weights=starting_weights(stored, experiment, reader),
        state=state,
        history=history,
    )
    return drive_run(record, driven, setting.group)


def train_further(
    stored: StoredRun,
    num_epochs: int,
    reader: Reader,
    recorder: Recorder,
    view: Callable[[TrainingGroup], Callback],
    *,
    allow: Sequence[AllowedChange] = (),
    root: Path | None = None,
    run_recorded_code: bool = False,
) -> RunResult:
    """Train a completed run further, as a new run that begins with the epochs of the old one.

    Its numbers are those of a run that had `num_epochs` from the beginning.

    Args:
        view, allow, run_recorded_code: as in `resume`.

    Raises:
        BadRequest: the run has not completed, has as many epochs already, has no checkpoint left,
            or has a schedule that depends on the length; or something has changed that is not
            allowed.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    before = recorded_experiment(stored, reader, "continue", run_recorded_code=run_recorded_code)
    _refuse_what_cannot_be_longer(stored, before, num_epochs)
    experiment = dataclasses.replace(before, num_epochs=num_epochs)
    setting = _prepared(stored, reader, experiment, "continue", allow, root)
    specification = _specification(stored, repeatable(sys.argv), root)
    state, history = _last_state(stored, setting, keep_best=specification.keep_best)
    if len(history) != stored.num_epochs:
        raise BadRequest(
            f"continue: the last checkpoint of {stored.run_id} is not there any more; train it "
            f"anew: python -m harness.run {stored.experiment} --num-epochs {num_epochs}"
        )
    changed = " ".join(setting.changed)
    specification = dataclasses.replace(
        specification,
        tags={
            "continues": stored.run_id,
            **({"allowed_changes": changed} if changed else {}),
        },
    )
    record = RecordLongerRun(
        recorder, specification, experiment, setting.execution, describe=describe_run
    )
    driven = driven_run(record, setting.group, view(setting.group), state=state, history=history)
    return drive_run(record, driven, setting.group)


@dataclass(frozen=True)
class _Setting:
    """What a stored run goes on with.

    Attributes:
        execution: how it was computed.
        group: one that computes so.
        changed: what has changed since it began, by permission.
    """

    prepared: Prepared
    execution: Execution
    group: LocalGroup
    changed: tuple[AllowedChange, ...]


def _prepared(
    stored: StoredRun,
    reader: Reader,
    experiment: Experiment,
    command: str,
    allow: Sequence[AllowedChange],
    root: Path | None,
) -> _Setting:
    names = [field.name for field in dataclasses.fields(Execution)]
    settings = {name: stored.settings[name] for name in names if name in stored.settings}
    execution = Execution(**settings)
    device = execution.apply()
    data = DataSource(root)
    prepared = data.prepare(experiment)
    changed = _by_kind(changes_since(stored, reader, prepared, execution, describe(device)))
    _refuse_changes(stored, changed, command, allow)
    return _Setting(prepared, execution, LocalGroup(data, execution, device), tuple(changed))


def _specification(
    stored: StoredRun, command: tuple[str, ...], data_root: Path | None
) -> RunSpecification:
    """What a run keeps, as its settings say."""
    settings = stored.settings
    return RunSpecification(
        settings=settings,
        figures=settings.get("figures", True),
        keep_best=settings.get("keep_best", False),
        log_average=settings.get("log_average", False),
        start_from=settings.get("start_from"),
        checkpoint_every=settings.get("checkpoint_every", 1),
        keep_checkpoints=settings.get("keep_checkpoints", CHECKPOINTS_KEPT),
        command=command,
        data_root=data_root,
    )


def _last_state(
    stored: StoredRun, setting: _Setting, *, keep_best: bool
) -> tuple[bytes | None, tuple[EpochResult, ...]]:
    """The last checkpoint that is a run's own, whole and fitting, with the epochs up to it.

    Without one the run starts from the beginning.
    """
    folder = project.mlruns() / "checkpoints" / stored.run_id
    for path in checkpoint.latest_first(folder):
        try:
            return _fitting_state(path, stored, setting, keep_best=keep_best)
        except checkpoint.CheckpointDamaged as damage:
            warnings.warn(f"{damage} Going on from the one before.", stacklevel=2)
    return None, ()


def _fitting_state(
    path: Path, stored: StoredRun, setting: _Setting, *, keep_best: bool
) -> tuple[bytes, tuple[EpochResult, ...]]:
    saved = checkpoint.load(path)
    if (saved.run, saved.experiment) != (stored.run_id, stored.experiment):
        raise checkpoint.CheckpointDamaged(
            f"{path}: it is of {saved.experiment} {saved.run}, "
            f"not of {stored.experiment} {stored.run_id}."
        )
    history = [EpochResult(*epoch) for epoch in checkpoint.history(path, saved)]
    prepared = setting.prepared
    # A copy, because methods may keep things in it; on the CPU, where memory is not scarce.
    rehearsal = dataclasses.replace(prepared, experiment=dataclasses.replace(prepared.experiment))
    training = rehearsal.training(
        dataclasses.replace(setting.execution, capture_graph=False),
        torch.device("cpu"),
        keep_best=usual_goal(prepared.experiment.directions()) if keep_best else None,
    )
    try:
        rehearse(training, saved.state(), history)
    except checkpoint.CheckpointDamaged as misfit:
        raise checkpoint.CheckpointDamaged(f"{path}: {misfit}.") from None
    return saved.content, tuple(history)


def _refuse_what_cannot_go_on(stored: StoredRun, reader: Reader, *, take_over: bool) -> None:
    if stored.kind in OF_STUDIES:
        raise BadRequest(
            f"resume: {stored.run_id} is a {stored.kind}, not a run. "
            "A study goes on with its own command."
        )
    group = reader.run(stored.parent) if stored.parent else stored
    if group.kind == "group":
        members = [
            f"{run.run_id[:8]} {run.outcome}" for run in reversed(reader.children(group.run_id))
        ]
        this = "" if group is stored else f"is one of the group {group.run_id[:8]}, which "
        raise BadRequest(
            f"resume: {stored.run_id} {this}has the runs {', '.join(members) or '(none yet)'}. "
            f"A group is repeated, not resumed{f': {group.command}' if group.command else '.'}"
        )
    if stored.outcome in ENDED:
        further = " To train it further: --continue" if stored.outcome != "diverged" else ""
        raise BadRequest(
            f"resume: {stored.run_id} has {stored.outcome} "
            f"after {number_of(stored.num_epochs or 0, 'epoch')}; "
            f"nothing is left to train.{further}"
        )
    owner = stored.owner
    if stored.outcome == "running" and not stored.is_abandoned:
        if owner and owner.is_here:
            raise BadRequest(f"resume: {stored.run_id} is still running, in process {owner.pid}.")
        if not take_over:
            raise BadRequest(
                f"resume: {stored.run_id} is recorded as running, by a process of another machine "
                "or container: whether that lives cannot be told from here. If it has ended: "
                f"python -m harness.run --resume {stored.run_id} --take-over"
            )


def _refuse_what_cannot_be_longer(
    stored: StoredRun, experiment: Experiment, num_epochs: int
) -> None:
    # A collapsed run may only need longer.
    if stored.kind != "run" or stored.outcome not in ("completed", "collapsed"):
        is_unfinished = stored.kind == "run" and stored.outcome not in ENDED
        hint = " To finish it: --resume" if is_unfinished else ""
        raise BadRequest(
            f"continue: {stored.run_id} is a {stored.kind} and has {stored.outcome}; only a "
            f"completed run can be trained further.{hint}"
        )
    if num_epochs <= (stored.num_epochs or 0):
        raise BadRequest(
            f"num_epochs: {num_epochs} is not more than the {stored.num_epochs} epochs that "
            f"{stored.run_id} has."
        )
    if experiment.has_own_scheduler or experiment.schedule != "constant":
        name = "its own scheduler()" if experiment.has_own_scheduler else experiment.schedule
        raise BadRequest(
            f"continue: the learning rate of {stored.run_id} follows {name}, which depends on the "
            f"length of the training. Train it anew: python -m harness.run {stored.experiment} "
            f"--num-epochs {num_epochs}"
        )


def _by_kind(changes: dict[str, Change]) -> dict[AllowedChange, str]:
    """The changes that decide a run's numbers, in words."""
    found: dict[AllowedChange, str] = {}
    if "experiment_sha256" in changes:
        found["experiment"] = "its file changed"
    elif OWN_CODE in changes:
        found["experiment"] = f"its code changed ({changes[OWN_CODE].now})"
    if any(name.startswith("data.") for name in changes):
        found["data"] = "its data changed"
    numerics: dict[str, AllowedChange] = {
        **{"device": "device", "device_name": "processor", "capability": "processor"},
        **{"threads": "threads", "torch": "torch"},
    }
    for name, kind in numerics.items():
        if name in changes and kind not in found:
            found[kind] = f"{name} was {changes[name].then}, is {changes[name].now}"
    return found


def _refuse_changes(
    stored: StoredRun,
    changed: dict[AllowedChange, str],
    command: str,
    allow: Sequence[AllowedChange],
) -> None:
    """Going on with something else would give a run that nobody can repeat."""
    refused = {name: words for name, words in changed.items() if name not in allow}
    if refused:
        flags = " ".join(f"--allow {name}" for name in refused)
        raise BadRequest(
            f"{command}: since {stored.run_id} began, {', '.join(refused.values())}.\n"
            "Its numbers would not be those of an uninterrupted run. "
            f"To go on all the same: {flags}"
        )
