"""Recovery after processes that died: what they left open is closed by the next command."""

from __future__ import annotations

import contextlib
from contextlib import closing

from harness.base import ownership
from harness.base.errors import BadRequest, RunFailed
from harness.base.ownership import LeftBehind
from harness.tracking.messages import ReconcileChildren, Recorder, RecoverRuns
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.store_address import fingerprint, is_read_only


def recover(recorder: Recorder | None = None) -> None:
    """Close the runs of dead processes as interrupted, and queue their trials again.

    Without a trace of a dead process it costs nothing. A store that may only be read is left to
    those who may write it. If a study's storage has a password, the study's own command recovers
    its trials: no password is written down here.

    Args:
        recorder: one whose store is open; by default one is started if there is work for it.

    Raises:
        RunFailed: the record cannot be opened.
    """
    left = [each for each in ownership.left_behind() if each.work.get("store") == fingerprint()]
    if not left or is_read_only():
        return
    with contextlib.ExitStack() as stack:
        recorder = recorder or stack.enter_context(closing(RecorderProcess()))
        unjudged = recorder.send(RecoverRuns()).elsewhere
        _recover_studies(left, recorder)
    if unjudged:
        # A run of an earlier boot may have been alive a moment ago: it is judged later.
        left = [each for each in left if each.owner.is_here]
    for each in left:
        each.path.unlink(missing_ok=True)


def _recover_studies(left: list[LeftBehind], recorder: Recorder) -> None:
    studies = {
        (each.work["storage"], each.work["study"]) for each in left if each.work.get("storage")
    }
    if not studies:
        return
    # Optuna takes half a second to import, and only a dead study needs it.
    from harness.search import trial_queue
    from harness.search.storage import load_stored, lock

    for url, name in studies:
        # A storage that is gone has no trials that could be helped.
        with contextlib.suppress(RunFailed, BadRequest):
            stored = load_stored(url, name, reading=False)
            with lock(url):
                trial_queue.requeue_orphans(stored)
            if run_id := stored.user_attrs.get("run_id"):
                recorder.send(ReconcileChildren(run_id, trial_queue.outcomes(stored)))
