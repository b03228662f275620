"""Going on with a run: to its end, or as a new run beyond it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.base import project
from harness.base.command_line import repeatable
from harness.base.errors import BadRequest
from harness.base.formatting import number_of
from harness.execution.callbacks import RecordLongerRun, RecordResumedRun
from harness.execution.changes import OWN_CODE, Change, changes_since
from harness.execution.descriptions import describe_run
from harness.execution.driver import Callback
from harness.execution.launch import RunResult, drive_run, driven_run
from harness.execution.preparation import DataSource
from harness.execution.specification import CHECKPOINTS_KEPT, RunSpecification
from harness.execution.trained_network import starting_weights
from harness.execution.training_group import LocalGroup, TrainingGroup
from harness.tracking.messages import Recorder
from harness.tracking.reader import Reader
from harness.tracking.schema import AllowedChange, StoredRun
from harness.tracking.selection import OF_STUDIES
from harness.training import checkpoint
from harness.training.device import Execution, describe
from harness.training.experiment import Experiment, load_experiment


def resume(
    stored: StoredRun,
    reader: Reader,
    recorder: Recorder,
    view: Callable[[TrainingGroup], Callback],
    *,
    allow: Sequence[AllowedChange] = (),
    root: Path | None = None,
    take_over: bool = False,
) -> RunResult:
    """Go on with a run from its last whole checkpoint, to the numbers of one never interrupted.

    The epochs that the checkpoint knows and the record lacks are recorded first; none is recorded
    twice.

    Args:
        view: shows the training of a group.
        allow: what may have changed since the run began: it is recorded.
        take_over: go on although it cannot be told from here whether the run's process lives.

    Raises:
        BadRequest: the run cannot go on, or something has changed that is not allowed.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    _refuse_what_cannot_go_on(stored, reader, take_over=take_over)
    experiment = load_experiment(stored.experiment)(**stored.fields)
    execution, group, changed = _prepared(stored, reader, experiment, "resume", allow, root)
    record = RecordResumedRun(
        stored,
        frozenset(epoch for _, epoch, _, _ in reader.history([stored.run_id])),
        recorder,
        _specification(stored, tuple(shlex.split(stored.command)), root),
        experiment,
        execution,
        allowed=changed,
        is_described=reader.artifact(stored.run_id, "experiment.json") is not None,
        describe=describe_run,
    )
    driven = driven_run(
        record,
        group,
        view(group),
        weights=starting_weights(stored, experiment, reader),
        state=_last_state(stored.run_id),
    )
    return drive_run(record, driven, group)


def train_further(
    stored: StoredRun,
    num_epochs: int,
    reader: Reader,
    recorder: Recorder,
    view: Callable[[TrainingGroup], Callback],
    *,
    allow: Sequence[AllowedChange] = (),
    root: Path | None = None,
) -> RunResult:
    """Train a completed run further, as a new run that begins with the epochs of the old one.

    Its numbers are those of a run that had `num_epochs` from the beginning.

    Args:
        view, allow: as in `resume`.

    Raises:
        BadRequest: the run has not completed, has as many epochs already, has no checkpoint left,
            or has a schedule that depends on the length; or something has changed that is not
            allowed.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    experiment_class = load_experiment(stored.experiment)
    before = experiment_class(**stored.fields)
    _refuse_what_cannot_be_longer(stored, before, num_epochs)
    experiment = dataclasses.replace(before, num_epochs=num_epochs)
    state = _last_state(stored.run_id)
    done = len(checkpoint.decode(state)["history"]) if state else 0
    if done != stored.num_epochs:
        raise BadRequest(
            f"continue: the last checkpoint of {stored.run_id} is not there any more; train it "
            f"anew: python -m harness.run {stored.experiment} --num-epochs {num_epochs}"
        )
    execution, group, changed = _prepared(stored, reader, experiment, "continue", allow, root)
    specification = dataclasses.replace(
        _specification(stored, repeatable(sys.argv), root),
        tags={
            "continues": stored.run_id,
            **({"allowed_changes": " ".join(changed)} if changed else {}),
        },
    )
    record = RecordLongerRun(recorder, specification, experiment, execution, describe=describe_run)
    driven = driven_run(record, group, view(group), state=state)
    return drive_run(record, driven, group)


def _prepared(
    stored: StoredRun,
    reader: Reader,
    experiment: Experiment,
    command: str,
    allow: Sequence[AllowedChange],
    root: Path | None,
) -> tuple[Execution, LocalGroup, tuple[AllowedChange, ...]]:
    """How a run was computed, a group that computes so, and what has changed by permission."""
    names = [field.name for field in dataclasses.fields(Execution)]
    execution = Execution(**{name: stored.settings[name] for name in names})
    device = execution.apply()
    data = DataSource(root)
    prepared = data.prepare(experiment)
    changed = _by_kind(changes_since(stored, reader, prepared, execution, describe(device)))
    _refuse_changes(stored, changed, command, allow)
    return execution, LocalGroup(data, execution, device), tuple(changed)


def _specification(
    stored: StoredRun, command: tuple[str, ...], data_root: Path | None
) -> RunSpecification:
    """What a run keeps, as its settings say."""
    settings = stored.settings
    return RunSpecification(
        settings=settings,
        figures=settings.get("figures", True),
        keep_best=settings.get("keep_best", False),
        start_from=settings.get("start_from"),
        checkpoint_every=settings.get("checkpoint_every", 1),
        keep_checkpoints=settings.get("keep_checkpoints", CHECKPOINTS_KEPT),
        command=command,
        data_root=data_root,
    )


def _last_state(run_id: str) -> bytes | None:
    """The last intact checkpoint of a run; None if it has none and starts from the beginning."""
    for path in checkpoint.latest_first(project.mlruns() / "checkpoints" / run_id):
        try:
            content = path.read_bytes()
            checkpoint.decode(content, str(path))
        except (OSError, checkpoint.CheckpointDamaged) as damage:
            warnings.warn(f"{damage} Going on from the one before.", stacklevel=2)
            continue
        return content
    return None


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
    if stored.outcome in ("completed", "diverged"):
        raise BadRequest(
            f"resume: {stored.run_id} has {stored.outcome} "
            f"after {number_of(stored.num_epochs or 0, 'epoch')}; "
            "nothing is left to train. To train it further: --continue"
        )
    owner = stored.owner
    if stored.outcome == "running" and not (owner and owner.is_dead):
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
    if stored.kind != "run" or stored.outcome != "completed":
        hint = "" if stored.kind != "run" else " To finish it: --resume"
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
