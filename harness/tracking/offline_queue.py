"""What a tracking server could not take: kept on disk in order, and sent when it is back.

Each server has a folder below `mlruns/spool/`, named by a digest of its address. In it every
process that records has a backlog, with a file for each write. `ids/` maps the keys of runs that
were created while the server was away to the ids that it has given them since.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from harness.base import project
from harness.base.errors import RunFailed
from harness.base.files import write_whole
from harness.base.formatting import harmless
from harness.base.ownership import Owner
from harness.base.privacy import mask
from harness.tracking.store import Store
from harness.tracking.store_address import spool_folder, stored_id
from harness.tracking.writer import ServerAway, Writer, answered
from harness.tracking.writes import CreateRun, Write, decoded, encoded

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds until a server that was away is tried again; doubled each time, up to the second."""


class OfflineQueue:
    """Sends one process's writes to a server: at once, or in order as soon as possible."""

    def __init__(self, store: Store) -> None:
        """Make a queue for this process; nothing is on disk until the server is away."""
        self.folder = spool_folder()
        self._writer = Writer(store, stored_id)
        self._backlog = _Backlog(self.folder / uuid.uuid4().hex)
        self._wait, self._next_try = FIRST_WAIT, 0.0

    @property
    def waiting(self) -> int:
        """How many of this process's writes are not sent yet."""
        return len(self._backlog.files())

    def write(self, write: Write) -> str | None:
        """Carry out a write, or keep it; a run created offline is known by its key.

        Raises:
            MlflowException: The server is there and refuses.
        """
        if not self.waiting or self.send():
            try:
                with answered():
                    return self._writer.write(write)
            except ServerAway:
                _warn(
                    f"the tracking server is away; recording continues in "
                    f"{_shown(self._backlog.folder)}"
                )
                self._postpone()
        self._backlog.add(write)
        return write.key if isinstance(write, CreateRun) else None

    def send(self, at_once: bool = False) -> bool:
        """Send what waits, unless the server was tried just now; return whether nothing is left.

        Args:
            at_once: Try the server in any case.
        """
        if not self.waiting:
            return True
        if not at_once and time.monotonic() < self._next_try:
            return False
        if self._writer.answers:
            with contextlib.suppress(ServerAway):
                self._send(self._backlog)
        if self.waiting:
            self._postpone()
            return False
        self._wait = FIRST_WAIT
        self._backlog.close()
        _warn("the tracking server is back; everything was sent")
        return True

    def send_others(self) -> tuple[int, int]:
        """Send what dead processes left; return how many writes were sent, and how many wait."""
        sent = waiting = 0
        for backlog in _Backlog.left_in(self.folder):
            with contextlib.suppress(Timeout), backlog.taken():
                before = len(backlog.files()) + len(backlog.refused())
                with contextlib.suppress(ServerAway):
                    self._send(backlog)
                left = len(backlog.files())
                sent += before - left - len(backlog.refused())
                waiting += left
                if not left:
                    backlog.close()
        return sent, waiting

    def _send(self, backlog: _Backlog) -> None:
        for path in backlog.files():
            try:
                write = decoded(path.read_bytes())
            except ValueError as error:
                _refuse(path, "skipped a damaged file", error)
                continue
            try:
                with answered():
                    reply = self._writer.write(write)
            except (
                *(MlflowException, requests.RequestException, RunFailed),
                # What follows means that a foreign file has fields of the wrong types.
                *(TypeError, ValueError, AttributeError, KeyError),
            ) as error:
                # The run may have been deleted on the server. Other writes can still be sent.
                _refuse(path, "the tracking server refused a write", error)
                continue
            if isinstance(write, CreateRun):
                write_whole(self.folder / "ids" / write.key, str(reply).encode())
            path.unlink()

    def _postpone(self) -> None:
        self._next_try = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)


class _Backlog:
    """Writes in order, one file each, in a folder that names the process that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    @classmethod
    def left_in(cls, folder: Path) -> list[_Backlog]:
        """What dead processes of this machine left behind, the oldest first."""
        found = []
        for path in sorted(folder.glob("*/owner"), key=lambda path: path.stat().st_mtime):
            owner = Owner.from_text(path.read_text(errors="replace"))
            if owner is None:
                _warn(f"skipped {_shown(path.parent)}: its file owner is damaged")
            elif owner.is_dead(path.parent.stat().st_mtime):  # of its last write
                found.append(cls(path.parent))
        return found

    def files(self) -> list[Path]:
        """The files that wait, in order."""
        return sorted(self.folder.glob("*.json"))

    def refused(self) -> list[Path]:
        """The files that the server refused, or that are damaged."""
        return list(self.folder.glob("*.refused"))

    def add(self, write: Write) -> None:
        """Keep one more write; it is on disk when this returns."""
        if not (self.folder / "owner").exists():
            write_whole(self.folder / "owner", str(Owner.current()).encode())
        self._count += 1
        write_whole(self.folder / f"{self._count:09d}.json", encoded(write))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Keep other processes from sending the same writes.

        Raises:
            Timeout: Another process is sending them.
        """
        with FileLock(self.folder.with_suffix(".lock"), timeout=0):
            yield

    def close(self) -> None:
        """Remove the folder after everything was sent; refused writes stay."""
        if not self.refused():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.with_suffix(".lock").unlink(missing_ok=True)


def _refuse(path: Path, what: str, error: Exception) -> None:
    """Rename a file that cannot be sent, so that the others are, and tell the user."""
    kept = path.replace(path.with_suffix(".refused"))
    reason = mask(str(error)).partition("\n")[0]
    _warn(f"{what}, kept as {_shown(kept)}: {reason}")


def _shown(path: Path) -> str:
    """A path as a message shows it."""
    return (
        str(path.relative_to(project.root())) if path.is_relative_to(project.root()) else str(path)
    )


def _warn(text: str) -> None:
    print(f"warning: {harmless(text)}", file=sys.stderr, flush=True)
