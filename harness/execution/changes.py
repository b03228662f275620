"""What has changed since a run was recorded: for those who resume it, and those who repeat it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.base import provenance
from harness.execution.preparation import Prepared
from harness.tracking.reader import Reader
from harness.tracking.schema import CHANGES, StoredRun
from harness.training.device import Execution

NUMERICS = (
    *("device", "device_name", "capability", "threads", "torch", "cuda"),
    *("matmul_precision", "capture_graph"),
)
"""What decides the bits, beside the experiment, its source and its data."""


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was recorded."""

    then: str
    now: str


OWN_CODE = "own_code"
"""The name of a change of the project's files that this process has imported for the experiment."""


def changes_since(
    stored: StoredRun,
    reader: Reader,
    prepared: Prepared,
    execution: Execution,
    machine: dict[str, str],
) -> dict[str, Change]:
    """What is not as it was when a run began, by the name of its tag or setting.

    Args:
        machine: this machine, as `harness.training.device.describe` tells.
    """
    now = {
        **machine,
        "experiment_sha256": prepared.experiment.source_digest(),
        **{f"data.{part.context}_sha256": part.digest for part in prepared.data_records()},
    }
    changes = {
        name: Change(stored.tag(name) or "not recorded", value)
        for name, value in now.items()
        if stored.tag(name) != value
    }
    changes |= _code_changes(stored, reader)
    for name, value in execution.parameters().items():
        if stored.settings.get(name) != value:
            changes[name] = Change(str(stored.settings.get(name)), str(value))
    return changes


def _code_changes(stored: StoredRun, reader: Reader) -> dict[str, Change]:
    """Commit and files, compared with the commit of the run and the changes that it had then."""
    source = provenance.source()
    changes = {}
    commit = stored.tag("git_commit") or ""
    if commit != (source.commit or "none"):
        changes["git_commit"] = Change(commit or "not recorded", source.commit or "none")
    then = stored.commit or "not recorded"
    state = stored.project_state
    if state not in ("clean", "dirty") or commit == "none":
        reason = stored.tag("git_reason") or "its commit is not recorded"
        return changes | {
            "files": Change(then, f"{source.name}; they cannot be compared: {reason}")
        }
    recorded: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if state == "dirty":
        content = reader.artifact(stored.parent or stored.run_id, CHANGES)
        try:
            told = json.loads(content or b"")
            recorded, left_out = told["files"], told.get("left_out_of_the_patch", {})
        except (ValueError, KeyError, TypeError):
            words = f"{source.name}; they cannot be compared: {CHANGES} of the run is damaged"
            return changes | {"files": Change(then, words)}
    try:
        differing = provenance.files_changed_since(commit, recorded)
    except ValueError as error:
        words = f"{source.name}; they cannot be compared: {error}"
        return changes | {"files": Change(then, words)}
    if differing:
        lost = [path for path in differing if path in left_out]
        words = f"different: {', '.join(differing)}"
        if lost:
            words += f" (not in the record: {', '.join(lost)})"
        changes["files"] = Change(f"as in {then}", words)
        imported = set(provenance.imported_files())
        own = [p for p in differing if p in imported and not p.startswith("harness/")]
        if own:
            changes[OWN_CODE] = Change(f"as in {then}", ", ".join(own))
    return changes
