"""Going on with a run that ended too early: `harness.run --resume`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from harness import door, runner, screen
from harness.errors import BadRequest
from harness.ownership import Owner
from harness.repair import clear_up
from harness.tracking.process import RecorderProcess
from harness.tracking.record import StoredRun
from harness.training.device import Execution, describe
from harness.training.experiment import load_experiment

Change = Literal["experiment", "data", "device", "threads", "torch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    """Which run to go on with, and what may have changed since it began."""

    resume: str
    """Id of the run, or last for the latest one that has not completed."""
    allow: tuple[Change, ...] = ()
    """What may differ from the record, at the price of other numbers; once for each thing."""
    data_root: Path | None = None
    """Folder of the data sets; HARNESS_DATA_ROOT, or data in the project, unless given."""
    quiet: bool = False
    """Print the result only."""


def main(arguments: Sequence[str], recorder: RecorderProcess) -> int:
    """Go on with a run; return the exit status."""
    settings = door.parse_settings(
        ResumeSettings, arguments, "python -m harness.run", "Go on with a run that ended too early."
    )
    recorder.prepare()
    clear_up(recorder)
    stored = recorder.stored(settings.resume)
    _refuse_what_cannot_go_on(stored)
    experiment = load_experiment(stored.experiment)(**stored.fields)
    names = [field.name for field in dataclasses.fields(Execution)]
    execution = Execution(**{name: stored.settings[name] for name in names})
    device = execution.apply()
    prepared = runner.prepare(experiment, settings.data_root)
    _refuse_changes(stored, prepared, device, settings.allow)
    watcher = screen.watcher(settings.quiet)
    result = runner.resume(stored, prepared, execution, device, recorder, watcher)
    print(screen.summary(result, prepared))
    print(f"run {result.run_id}\nsee it with: python -m harness.ui")
    return 1 if result.outcome == "diverged" else 0


def _refuse_what_cannot_go_on(stored: StoredRun) -> None:
    if stored.kind != "run":
        raise BadRequest(
            f"resume: {stored.run_id} is a {stored.kind}, not a run. "
            "A study goes on with its own command, a group is repeated."
        )
    if stored.tags.get("parent"):
        raise BadRequest(f"resume: {stored.run_id} is one of a group; repeat the group instead.")
    if stored.outcome in ("completed", "diverged"):
        raise BadRequest(
            f"resume: {stored.run_id} has {stored.outcome} after {len(stored.epochs)} epochs; "
            "there is nothing left of it."
        )
    owner = Owner.from_text(stored.tags["owner"])
    if stored.outcome == "running" and not owner.is_dead:
        where = f"process {owner.pid}" if owner.is_here else "a process of another machine"
        raise BadRequest(f"resume: {stored.run_id} is still run by {where}.")


def _refuse_changes(
    stored: StoredRun,
    prepared: runner.Prepared,
    device: torch.device,
    allowed: Sequence[Change],
) -> None:
    """Going on with something else would give a run that nobody can repeat."""
    here = describe(device)
    data = {part.context: part.digest for part in prepared.data_records()}
    now: dict[Change, str] = {
        "experiment": prepared.experiment.source_digest(),
        "data": " ".join(data.values()),
        "device": here["device"],
        "threads": here["threads"],
        "torch": here["torch"],
    }
    then: dict[Change, str] = {
        "experiment": stored.tags["experiment_sha256"],
        "data": " ".join(stored.tags.get(f"data.{name}_sha256", "none") for name in data),
        "device": stored.tags["device"],
        "threads": stored.tags["threads"],
        "torch": stored.tags["torch"],
    }
    changed = [name for name in now if now[name] != then[name] and name not in allowed]
    if changed:
        short = {"experiment": "its file", "data": "its images"}
        what = ", ".join(
            f"{short[name]} changed"
            if name in short
            else f"{name} was {then[name]}, is {now[name]}"
            for name in changed
        )
        flags = " ".join(f"--allow {name}" for name in changed)
        raise BadRequest(
            f"resume: since {stored.run_id} began, {what}.\nIts numbers would not be those of an "
            f"uninterrupted run. To go on all the same: {flags}"
        )
