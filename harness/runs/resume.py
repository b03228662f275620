"""Going on with a run that ended too early: `harness.run --resume`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from harness.base.errors import BadRequest
from harness.base.formatting import number_of
from harness.cli import flags, run_progress
from harness.runs import runner
from harness.runs.recovery import clear_up
from harness.tracking.reader import open_reader
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.schema import StoredRun
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
    settings = flags.parse_settings(
        ResumeSettings, arguments, "python -m harness.run", "Go on with a run that ended too early."
    )
    recorder.prepare()
    clear_up(recorder)
    reader = open_reader()
    stored = reader.find(settings.resume, "resume")
    _refuse_what_cannot_go_on(stored)
    experiment = load_experiment(stored.experiment)(**stored.fields)
    names = [field.name for field in dataclasses.fields(Execution)]
    execution = Execution(**{name: stored.settings[name] for name in names})
    device = execution.apply()
    prepared = runner.prepare(experiment, settings.data_root)
    changed = _changed(stored, prepared, device)
    _refuse_changes(stored, changed, settings.allow)
    watcher = run_progress.watcher(settings.quiet)
    result = runner.resume(
        stored,
        prepared,
        execution,
        device,
        recorder,
        watcher,
        allowed=list(changed),
        recorded={
            epoch
            for _, epoch, metric, _ in reader.history([stored.run_id])
            if metric.startswith("train/")
        },
        is_described=reader.artifact(stored.run_id, "experiment.json") is not None,
    )
    print(run_progress.summary(result, prepared))
    print(f"run {result.run_id}\nsee it with: python -m harness.ui")
    return 1 if result.outcome == "diverged" else 0


def _refuse_what_cannot_go_on(stored: StoredRun) -> None:
    if not stored.is_ours:
        raise BadRequest(f"resume: {stored.run_id} is not one of the harness's runs.")
    if stored.kind != "run":
        raise BadRequest(
            f"resume: {stored.run_id} is a {stored.kind}, not a run. "
            "A study goes on with its own command, a group is repeated."
        )
    if stored.parent:
        raise BadRequest(f"resume: {stored.run_id} is one of a group; repeat the group instead.")
    if stored.outcome in ("completed", "diverged"):
        raise BadRequest(
            f"resume: {stored.run_id} has {stored.outcome} "
            f"after {number_of(stored.num_epochs or 0, 'epoch')}; "
            "there is nothing left of it."
        )
    owner = stored.owner
    if stored.outcome == "running" and owner and not owner.is_dead:
        where = f"process {owner.pid}" if owner.is_here else "a process of another machine"
        raise BadRequest(f"resume: {stored.run_id} is still run by {where}.")


def _changed(
    stored: StoredRun, prepared: runner.Prepared, device: torch.device
) -> dict[Change, str]:
    """What is not as it was when the run began, in words."""
    here, then = describe(device), stored.tag
    changed: dict[Change, str] = {}
    if prepared.experiment.source_digest() != then("experiment_sha256"):
        changed["experiment"] = "its file changed"
    digests = {part.context: part.digest for part in prepared.data_records()}
    if any(stored.data.get(name) != digest for name, digest in digests.items()):
        changed["data"] = "its images changed"
    numerics: tuple[Change, ...] = ("device", "threads", "torch")
    for name in numerics:
        if here[name] != then(name):
            changed[name] = f"{name} was {then(name)}, is {here[name]}"
    return changed


def _refuse_changes(
    stored: StoredRun, changed: dict[Change, str], allowed: Sequence[Change]
) -> None:
    """Going on with something else would give a run that nobody can repeat."""
    refused = {name: words for name, words in changed.items() if name not in allowed}
    if refused:
        flags = " ".join(f"--allow {name}" for name in refused)
        raise BadRequest(
            f"resume: since {stored.run_id} began, {', '.join(refused.values())}.\n"
            "Its numbers would not be those of an uninterrupted run. "
            f"To go on all the same: {flags}"
        )
