"""Processes with everything that they have started: begun, watched, ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from harness.base.machine import START_TOLERANCE, process_start
from harness.base.signals import deferred

GRACE_SECONDS = 5.0
"""What a process gets to end in order before it is killed."""

KILL_SECONDS = 5.0
"""How long the system gets to remove a killed process."""

OWN_SESSION: dict[str, Any]
"""Options for `Popen`: Ctrl-C in this terminal does not reach the process."""
if sys.platform == "win32":
    OWN_SESSION = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    OWN_SESSION = {"start_new_session": True}


@contextlib.contextmanager
def child_process(
    command: Sequence[str], *, own_session: bool = False, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with empty standard input; it is ended, with its tree, when the block ends.

    An interruption leaves no process behind, whenever it arrives.
    """
    process = None
    try:
        with deferred():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                **(OWN_SESSION if own_session else {}),
                **options,
            )
        yield process
    finally:
        with deferred():
            if process and process.poll() is None:
                end_tree(process.pid)
                process.wait()


def end_tree(pid: int, grace: float = GRACE_SECONDS) -> None:
    """Ask a process and all its descendants to end, and kill those that do not.

    The exit status stays for whoever waits for the process.

    Args:
        grace: Seconds between the two; with 0 they are killed at once.
    """
    tree = process_tree(pid)
    if grace:
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        deadline = time.monotonic() + grace
        while any(map(_lives, tree)) and time.monotonic() < deadline:
            time.sleep(0.02)
    deadline = time.monotonic() + KILL_SECONDS
    while (living := list(filter(_lives, tree))) and time.monotonic() < deadline:
        # Each of them may have started others since.
        tree = [each for process in living for each in process_tree(process.pid)]
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its living descendants; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def is_running(pid: int, started: str) -> bool:
    """Return whether a process that began at that time still runs; zombies do not.

    Args:
        started: What `process_start` returned for it, as text.
    """
    try:
        start = process_start(pid)
        return start is not None and abs(start - float(started)) <= START_TOLERANCE
    except psutil.AccessDenied:
        return True
    except ValueError:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
