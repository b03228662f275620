"""Recovery after processes that died: what they left open is closed by the next command."""

from __future__ import annotations

import contextlib
from contextlib import closing
from pathlib import Path

from harness.base import ownership
from harness.base.errors import BadRequest, RunFailed
from harness.tracking.messages import ReconcileChildren, Recorder, RecoverRuns
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.store_address import fingerprint


def recover(recorder: Recorder | None = None) -> None:
    """Close the runs of dead processes as interrupted, and queue their trials again.

    Without a trace of a dead process it costs nothing. If a study's storage has a password, the
    study's own command recovers its trials: no password is written down here.

    Args:
        recorder: one whose store is open; by default one is started if there is work for it.

    Raises:
        RunFailed: the record cannot be opened.
    """
    left = [(path, work) for path, work in ownership.left_behind() if _is_here(work)]
    if not left:
        return
    if recorder is None:
        with closing(RecorderProcess()) as recorder:
            recorder.send(RecoverRuns())
            _recover_studies(left, recorder)
    else:
        _recover_studies(left, recorder)
    for path, _ in left:
        path.unlink(missing_ok=True)


def _is_here(work: dict[str, str]) -> bool:
    return work.get("store") == fingerprint()


def _recover_studies(left: list[tuple[Path, dict[str, str]]], recorder: Recorder) -> None:
    studies = {(work["storage"], work["study"]) for _, work in left if work.get("storage")}
    if not studies:
        return
    # Optuna takes half a second to import, and only a dead study needs it.
    from harness.search import trial_queue
    from harness.search.storage import load_stored, lock

    for url, name in studies:
        # A storage that is gone has no trials that could be helped.
        with contextlib.suppress(RunFailed, BadRequest):
            stored = load_stored(url, name)
            with lock(url):
                trial_queue.requeue_orphans(stored)
            if run_id := stored.user_attrs.get("run_id"):
                recorder.send(ReconcileChildren(run_id, trial_queue.outcomes(stored)))
