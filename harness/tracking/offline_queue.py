"""What a tracking server could not take: kept on disk in order, and sent when it is back.

Below `mlruns/spool/` each server has a folder, named by a digest of its address. In it each process
that records has a queue, a file for each write; and `ids/` tells which id the server gave to a run
that was begun while it was away.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from harness.base.errors import RunFailed
from harness.base.files import write_whole
from harness.base.ownership import Owner, is_owner_dead
from harness.base.privacy import mask
from harness.base.project import MLRUNS, ROOT
from harness.tracking.store import Store
from harness.tracking.store_address import fingerprint
from harness.tracking.writer import Delivery, ServerAway, answered

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds until a server that was away is asked again, doubled each time up to the second."""


class Spool:
    """Delivers one process's writes to a server: at once, or in order as soon as it can be."""

    def __init__(self, store: Store) -> None:
        """A queue of this process's own; nothing is on disk until the server is away."""
        self.folder = MLRUNS / "spool" / fingerprint()
        self.delivery = Delivery(store, self.stored_id)
        self._queue = _Queue(self.folder / uuid.uuid4().hex)
        self._wait, self._next_try = FIRST_WAIT, 0.0

    @property
    def waiting(self) -> int:
        """How many of this process's writes are not sent yet."""
        return len(self._queue.files())

    def write(self, method: str, run_id: str, arguments: dict[str, Any]) -> Any:
        """Carry out a write of `Delivery`, or keep it; a run begun offline has its key as id.

        Raises:
            MlflowException: the server is there and refuses.
        """
        if method == "begin":
            run_id = uuid.uuid4().hex
        if not self.waiting or self.send():
            try:
                with answered():
                    return getattr(self.delivery, method)(run_id, **arguments)
            except ServerAway:
                _say(
                    f"the tracking server is away; recording goes on in "
                    f"{self._queue.folder.relative_to(ROOT)}"
                )
                self._postpone()
        self._queue.add({"method": method, "run_id": run_id, "arguments": arguments})
        return run_id if method == "begin" else None

    def send(self, at_once: bool = False) -> bool:
        """Send what waits, where it is time (or `at_once`); return whether nothing is left."""
        if not self.waiting:
            return True
        if not at_once and time.monotonic() < self._next_try:
            return False
        if self.delivery.answers:
            with contextlib.suppress(ServerAway):
                self._send(self._queue)
        if self.waiting:
            self._postpone()
            return False
        self._wait = FIRST_WAIT
        self._queue.close()
        _say("the tracking server is back; everything was sent")
        return True

    def send_others(self) -> tuple[int, int]:
        """Send what dead processes left behind; return the writes sent and those still waiting."""
        sent = waiting = 0
        for queue in _Queue.all_in(self.folder):
            with contextlib.suppress(Timeout), queue.taken():
                before = len(queue.files())
                with contextlib.suppress(ServerAway):
                    self._send(queue)
                left = len(queue.files())
                sent, waiting = sent + before - left, waiting + left
                if not left:
                    queue.close()
        return sent, waiting

    def stored_id(self, run_id: str) -> str:
        """The server's id of a run, which may have been begun while the server was away."""
        known = self.folder / "ids" / run_id
        return known.read_text() if known.is_file() else run_id

    def close(self) -> int:
        """Try once more to send what waits; return how many writes are left on disk."""
        self.send(at_once=True)
        return self.waiting

    def _send(self, queue: _Queue) -> None:
        for path in queue.files():
            entry = json.loads(path.read_bytes())
            try:
                with answered():
                    reply = getattr(self.delivery, entry["method"])(
                        entry["run_id"], **entry["arguments"]
                    )
            except (MlflowException, requests.RequestException, RunFailed) as error:
                # The server will not take it (the run was deleted there, say): others may go.
                reason = mask(str(error)).partition("\n")[0]
                kept = path.rename(path.with_suffix(".refused"))
                _say(f"the tracking server refused {kept.relative_to(ROOT)}: {reason}")
                continue
            if entry["method"] == "begin":
                write_whole(self.folder / "ids" / entry["run_id"], str(reply).encode())
            path.unlink()

    def _postpone(self) -> None:
        self._next_try = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)


class _Queue:
    """Writes in order, one file each, in a folder that says which process fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    @classmethod
    def all_in(cls, folder: Path) -> list[_Queue]:
        """The queues that dead processes of this machine left behind, the oldest first."""
        owners = sorted(folder.glob("*/owner"), key=lambda path: path.stat().st_mtime)
        return [cls(path.parent) for path in owners if is_owner_dead(path.read_text())]

    def files(self) -> list[Path]:
        """The files of what waits, in order."""
        return sorted(self.folder.glob("*.json"))

    def add(self, entry: dict[str, Any]) -> None:
        """Keep one more write; it is on disk when this returns."""
        if not (self.folder / "owner").exists():
            write_whole(self.folder / "owner", str(Owner.current()).encode())
        self._count += 1
        write_whole(self.folder / f"{self._count:09d}.json", json.dumps(entry).encode())

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Keep others from sending the same.

        Raises:
            Timeout: somebody else is sending it.
        """
        with FileLock(self.folder.with_suffix(".lock"), timeout=0):
            yield

    def close(self) -> None:
        """Remove a queue from which everything was sent; what was refused stays."""
        if not any(self.folder.glob("*.refused")):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.with_suffix(".lock").unlink(missing_ok=True)


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
