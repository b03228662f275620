"""The processes that train a study's trials: started, spoken with, ended.

Where it is safe they are forked from this process, which has imported torch for all of them.
Otherwise each is started, and imports torch itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import torch

from harness.base.project import ROOT
from harness.base.signals import deferred
from harness.cli import entry
from harness.tracking.recorder_process import RecorderProcess
from harness.workers.worker import Place, work


class Process(Protocol):
    """A process that leads a session of its own."""

    @property
    def pid(self) -> int:
        """Its id, and that of its session."""

    def wait(self) -> int:
        """Wait for its end: its exit status, or less than 0 for the signal that killed it."""


@dataclass(eq=False)
class WorkerProcess:
    """One worker as its launcher sees it: how to speak with it, and what it was last heard to do.

    Attributes:
        errors: what it writes to standard error.
        job: what it was sent and has not finished.
        alive: whether its death has not been heard of.
    """

    number: int
    process: Process
    line: Connection
    errors: IO[str]
    job: dict[str, Any] | None = None
    doing: str = "starting"
    epoch: int = 0
    value: float | None = None
    alive: bool = True

    def send(self, message: dict[str, Any]) -> None:
        """Send it a message; a worker that has died will not read it."""
        with contextlib.suppress(OSError):
            self.line.send(message)

    def give(self, **job: Any) -> None:
        """Send it a job."""
        self.job = job
        self.send(job)

    def death(self) -> str:
        """How it ended, with the end of what it wrote to standard error."""
        status = self.process.wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        self.errors.seek(0)
        words = self.errors.read()[-500:].strip()
        return f"{how}: {words}" if words else how


class Crew:
    """The workers of a study; `close` ends them."""

    def __init__(
        self, number: int, threads: int, recorder: RecorderProcess, *, on_cpu: bool
    ) -> None:
        """Start so many workers with so many threads each; they wait for a task."""
        self.workers: list[WorkerProcess] = []
        self._has_task = False
        forked = on_cpu and _may_fork()
        if forked:
            gc.freeze()  # else the first collection copies what is shared
            sys.stdout.flush()  # else each of them prints it again
        try:
            for i in range(number):
                ours, theirs = Pipe()
                errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when it has died)
                with theirs, recorder.share() as connection, deferred():
                    place = Place(theirs.fileno(), errors.fileno(), connection.fileno())
                    process: Process
                    if not forked:
                        process = _start(place, threads)
                    elif pid := os.fork():
                        process = _Forked(pid)
                    else:
                        _be_worker(place, recorder, [*(w.line for w in self.workers), ours])
                    self.workers.append(WorkerProcess(i, process, ours, errors))
        except BaseException:
            self.close()
            raise

    def set_task(self, task: dict[str, Any]) -> None:
        """Tell the workers what they work on."""
        self._has_task = True
        for worker in self.workers:
            worker.send(task)

    def hear(self) -> tuple[WorkerProcess, dict[str, Any]]:
        """The next thing that a worker says, or its death: `died`, and `how`."""
        lines: dict[Any, WorkerProcess] = {w.line: w for w in self.workers if w.alive}
        worker = lines[wait(list(lines))[0]]
        with deferred():
            try:
                event: dict[str, Any] = worker.line.recv()
            except (EOFError, OSError):
                worker.alive = False
                event = {"event": "died", "how": worker.death()}
        return worker, event

    def close(self) -> None:
        """End the workers; they give back what they hold."""
        with deferred():
            for worker in self.workers:
                worker.line.close()
            for worker in self.workers:
                if not self._has_task:
                    # They may still be importing, for a request that was refused meanwhile.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()


@dataclass
class _Forked:
    """A forked child."""

    pid: int
    status: int | None = None

    def wait(self) -> int:
        if self.status is None:
            try:
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:  # whoever started this command ignores the ends of children
                self.status = 0
        return self.status


def _may_fork() -> bool:
    """Whether a fork takes all of this process along.

    It leaves other threads behind: those of OpenMP, which `torch.set_num_threads` starts, would be
    waited for without end. CUDA's driver does not survive it, and looking for a GPU loads it. On
    macOS the system's own libraries have threads.
    """
    if sys.platform != "linux" or torch.cuda.is_available():
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _be_worker(place: Place, recorder: RecorderProcess, lines: list[Connection]) -> NoReturn:
    """What a forked process does: it must never return into the command that it is forked from."""
    try:
        os.setsid()  # Ctrl-C is for the launcher, which then ends its workers in order
        recorder.let_go()
        for line in lines:
            line.close()
        entry.enter(lambda _: work(place))
    except BaseException:
        traceback.print_exc()  # to where the worker's errors go
    finally:
        os._exit(1)


def _start(place: Place, threads: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.workers.worker", str(place)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=place.errors,
        stderr=place.errors,
        pass_fds=place.descriptors,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        start_new_session=True,
    )
