"""Workers on this machine: forked from this process if that is safe, started otherwise.

A forked worker shares the libraries that this process has imported. A started one imports them
itself, and never the user's script.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any

import psutil
import torch

from harness.base.channel import Connection, start_module
from harness.base.processes import end_tree
from harness.base.signals import deferred
from harness.workers.pool import BeginTraining, Died, FromWorker, ToWorker, WorkerSetup
from harness.workers.worker import serve_forked

LAST_WORDS = 500
"""Characters of a dead worker's standard error that its death is reported with."""


@dataclass(eq=False)
class _Worker:
    """A worker's process and the channel to it.

    Attributes:
        errors: what it writes to standard output and standard error.
        wait: waits for its end; returns its exit status, or less than 0 for a signal.
    """

    pid: int
    connection: Connection
    errors: IO[bytes]
    wait: Callable[[], int]

    def death(self) -> Died:
        """How it ended."""
        status = self.wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace")[-LAST_WORDS:].strip()
        return Died(f"{how}: {words}" if words else how)


class LocalPool:
    """A pool of processes of this machine; see `WorkerPool`."""

    def __init__(self, *, forks: bool, close_in_worker: Callable[[], None] = lambda: None) -> None:
        """An empty pool.

        Args:
            forks: whether workers are forked where `can_fork` says so; they may train on the CPU
                alone, and only if this process has not trained before.
            close_in_worker: closes connections of this process in a worker that is forked from it.
        """
        self._forks = forks
        self._close_in_worker = close_in_worker
        self._workers: dict[int, _Worker] = {}

    def start(self, number: int, setup: WorkerSetup) -> None:
        """See `WorkerPool`."""
        with deferred():  # a process that is being started must not be left behind
            start = _fork if self._forks and can_fork() else _start
            self._workers[number] = start(setup, self._close_inherited)

    def send(self, number: int, message: ToWorker) -> None:
        """See `WorkerPool`."""
        with contextlib.suppress(OSError):
            self._workers[number].connection.send_bytes(_pickled(message))

    def receive(self, timeout: float | None = None) -> tuple[int, FromWorker] | None:
        """See `WorkerPool`."""
        numbers = {worker.connection: number for number, worker in self._workers.items()}
        ready = wait(list(numbers), timeout)
        if not ready:
            return None
        connection = ready[0]
        assert isinstance(connection, Connection)
        number = numbers[connection]
        with deferred():  # a message that is left half read would be taken for the next one
            try:
                message: FromWorker = connection.recv()
            except (EOFError, OSError):
                message = self._workers.pop(number).death()
                connection.close()
        return number, message

    def kill(self, number: int) -> None:
        """See `WorkerPool`."""
        with deferred():
            worker = self._workers.pop(number)
            end_tree(worker.pid, grace=0)
            worker.connection.close()
            worker.errors.close()

    def close(self) -> None:
        """See `WorkerPool`."""
        with deferred():
            for worker in self._workers.values():
                worker.connection.close()
                end_tree(worker.pid)
                worker.wait()
                worker.errors.close()
            self._workers.clear()

    def _close_inherited(self) -> None:
        self._close_in_worker()
        for worker in self._workers.values():
            worker.connection.close()


def _pickled(message: ToWorker) -> bytes:
    """A message as a connection receives it.

    An experiment that is defined in a script or notebook travels with its code: a started worker
    cannot import it from there.
    """
    if (
        isinstance(message, BeginTraining)
        and type(message.task.experiment).__module__ == "__main__"
    ):
        import cloudpickle  # slow to import, and rarely needed

        return bytes(cloudpickle.dumps(message))
    return bytes(ForkingPickler.dumps(message))


def can_fork() -> bool:
    """Whether a fork takes all of this process along.

    It leaves other threads behind: those of OpenMP, which `torch.set_num_threads` starts, would be
    waited for forever. CUDA's driver does not survive a fork, and looking for a GPU loads it. On
    macOS the system's own libraries have threads.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin" or torch.cuda.is_available():
        return False
    return bool(psutil.Process().num_threads() == 1)


def _fork(setup: WorkerSetup, close_inherited: Callable[[], None]) -> _Worker:
    if sys.platform == "win32":
        raise RuntimeError("this system cannot fork")
    ours, theirs = Pipe()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (read when the worker has died)
    gc.freeze()  # otherwise the first collection copies what is shared
    sys.stdout.flush()  # otherwise the worker prints it again

    def close_others() -> None:
        close_inherited()
        ours.close()

    process = multiprocessing.get_context("fork").Process(
        target=serve_forked, args=(theirs, setup, errors.fileno(), close_others), daemon=True
    )
    with theirs:
        process.start()

    def wait_for_end() -> int:
        process.join()
        return process.exitcode or 0

    assert process.pid
    return _Worker(process.pid, ours, errors, wait_for_end)


def _start(setup: WorkerSetup, close_inherited: Callable[[], None]) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (read when the worker has died)
    threads = setup.execution.threads
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    process: subprocess.Popen[Any]
    process, connection = start_module(
        "harness.workers.worker", environment=environment, errors=errors
    )
    connection.send(setup)
    return _Worker(process.pid, connection, errors, process.wait)
