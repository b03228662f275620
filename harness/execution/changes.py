"""What has changed since a run was recorded: for those who resume it, and those who repeat it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.base import provenance
from harness.execution.preparation import Prepared
from harness.tracking.schema import StoredRun
from harness.training.device import Execution

NUMERICS = (
    "device",
    "device_name",
    "threads",
    "torch",
    "cuda",
    "matmul_precision",
    "capture_graph",
)
"""What decides the bits, beside the experiment, its source and its data."""


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was recorded."""

    then: str
    now: str


def changes_since(
    stored: StoredRun, prepared: Prepared, execution: Execution, machine: dict[str, str]
) -> dict[str, Change]:
    """What is not as it was when a run began, by the name of its tag or setting.

    Args:
        machine: this machine, as `harness.training.device.describe` tells.
    """
    source = provenance.source()
    now = {
        **{name: machine[name] for name in ("device", "device_name", "threads", "torch", "cuda")},
        "git_commit": source.commit or "none",
        "git_dirty": str(bool(source.changes)).lower(),
        "experiment_sha256": prepared.experiment.source_digest(),
        **{f"data.{part.context}_sha256": part.digest for part in prepared.data_records()},
    }
    changes = {
        name: Change(stored.tag(name) or "not recorded", value)
        for name, value in now.items()
        if stored.tag(name) != value
    }
    commit = stored.tag("git_commit") or ""
    if files := provenance.files_changed_since(commit):
        changes["files"] = Change(f"as in {commit[:8]}", f"changed: {', '.join(files)}")
    for name, value in execution.parameters().items():
        if stored.settings.get(name) != value:
            changes[name] = Change(str(stored.settings.get(name)), str(value))
    return changes
