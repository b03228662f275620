"""Clearing up after processes that died: what they left open is closed at the next command."""

from __future__ import annotations

import contextlib
from contextlib import closing
from pathlib import Path

from harness.base import ownership
from harness.base.errors import BadRequest, RunFailed
from harness.tracking.messages import ReconcileChildren, RecoverRuns
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.store_address import fingerprint


def clear_up(recorder: RecorderProcess | None = None) -> None:
    """Close the runs of dead processes as interrupted, and queue their trials again.

    Without a trace of a dead process it costs nothing. Where a study's storage has a password, the
    study's own command clears up: no password is written down here.

    Args:
        recorder: a prepared one; where it is missing one is started, if there is work for it.

    Raises:
        RunFailed: the record cannot be opened.
    """
    left = [(path, work) for path, work in ownership.left_behind() if _is_here(work)]
    if not left:
        return
    if recorder is None:
        with closing(RecorderProcess()) as recorder:
            recorder.send(RecoverRuns())
            _clear_up_studies(left, recorder)
    else:
        _clear_up_studies(left, recorder)
    for path, _ in left:
        path.unlink(missing_ok=True)


def _is_here(work: dict[str, str]) -> bool:
    return work.get("store") == fingerprint()


def _clear_up_studies(left: list[tuple[Path, dict[str, str]]], recorder: RecorderProcess) -> None:
    studies = {(work["storage"], work["study"]) for _, work in left if work.get("storage")}
    if not studies:
        return
    from harness.search import trial_queue
    from harness.search.storage import load_stored, lock

    for url, name in studies:
        # A storage that is gone has no trials that could be helped.
        with contextlib.suppress(RunFailed, BadRequest):
            stored = load_stored(url, name)
            with lock(url):
                trial_queue.repair(stored)
            if run_id := stored.user_attrs.get("run_id"):
                recorder.send(ReconcileChildren(run_id, trial_queue.outcomes(stored)))
