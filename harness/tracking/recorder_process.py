"""The recorder in a process of its own: it opens MLflow while the training process imports torch.

Requests go through a socket, one at a time, and are answered when they are on disk. When the
training process dies, its end of the socket closes, and the recorder ends its runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

from harness.base.errors import BadRequest, RunFailed
from harness.base.ownership import register
from harness.base.privacy import mask
from harness.base.project import ROOT
from harness.base.signals import deferred
from harness.tracking.schema import FiguresRecord, ModelRecord, Outcome, RunRecord
from harness.tracking.store_address import fingerprint

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is away must not hold up the start for minutes, as MLflow's defaults do.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    # The training needs the cores; the recorder computes nothing.
    "OMP_NUM_THREADS": "1",
}
"""What the recorder's process adds to its environment, where the user has not set it."""

IDLE_SECONDS = 1.0
"""Between two looks for a server that is away, while there is nothing to record."""


class RecorderClient:
    """A recorder whose calls are carried out by another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unanswered = 0
        self._used = False

    @classmethod
    def inherited(cls, descriptor: int) -> RecorderClient:
        """The client of a connection that the parent process shared."""
        return cls(Connection(descriptor))

    def prepare(self) -> None:
        """Open the store; returns at once, what goes wrong is raised by the next call."""
        self._send("prepare")

    def start(self, record: RunRecord) -> str:
        """Begin a run and return its id."""
        run_id: str = self._call("start", record)
        return run_id

    def resume(
        self,
        run_id: str,
        owner: str,
        allowed: Sequence[str] = (),
        record: RunRecord | None = None,
    ) -> None:
        """Go on with a run that had ended, in another process's hands."""
        self._call("resume", run_id, owner, allowed, record)

    def epoch(
        self, run_id: str, epoch: int, metrics: dict[str, float], *, wait: bool = True
    ) -> None:
        """Record one epoch's metrics.

        Args:
            wait: until they are on disk; else what goes wrong is raised by the next call.
        """
        if wait:
            self._call("epoch", run_id, epoch, metrics)
        else:
            with deferred():
                self._received()
                self._send("epoch", run_id, epoch, metrics)

    def wait(self) -> None:
        """Wait until all that was sent is on disk."""
        with deferred():
            self._received()

    def artifacts(self, run_id: str, files: dict[str, bytes]) -> None:
        """Keep files with a run, by their path among its artifacts."""
        self._call("artifacts", run_id, files)

    def figures(self, run_id: str, record: FiguresRecord) -> None:
        """Draw a run's figures; returns at once, what goes wrong is raised by the next call."""
        self._send("figures", run_id, record)

    def model(self, run_id: str, model: ModelRecord) -> float:
        """Log the network that the run ends with; return the seconds that took."""
        seconds: float = self._call("model", run_id, model)
        return seconds

    def finish(
        self,
        run_id: str,
        outcome: Outcome,
        *,
        epoch: int = 0,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
    ) -> None:
        """End a run with its outcome, metrics of the whole, tags and a Markdown description."""
        self._call(
            "finish",
            run_id,
            outcome,
            epoch=epoch,
            metrics=metrics,
            tags=tags,
            description=description,
        )

    def settle(self, parent: str, outcomes: dict[str, str]) -> None:
        """Give a run's children the outcomes that they ought to have; see `MlflowRecorder`."""
        self._call("settle", parent, outcomes)

    def clear_up(self) -> tuple[int, int]:
        """Clear up after dead processes: the writes sent for them, and those still waiting."""
        sent, waiting = self._call("clear_up")
        return sent, waiting

    def send_waiting(self) -> int:
        """Send what a server could not take, if it is back; return how many writes wait."""
        waiting: int = self._call("send_waiting", at_once=True)
        return waiting

    def _send(self, method: str, *arguments: Any, **options: Any) -> None:
        try:
            self._connection.send((method, arguments, options))
        except OSError:
            raise self._died() from None
        self._unanswered += 1
        self._used = True

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        # An answer that is left half read would be taken for the next call's.
        with deferred():
            self._received()  # not waited for so far: what cannot be opened is not tried twice
            self._send(method, *arguments, **options)
            return self._received()

    def _received(self) -> Any:
        """The last of the answers that are still to come; raise at the first failure."""
        reply: Any = None
        while self._unanswered:
            try:
                failure, reply = self._connection.recv()
            except (OSError, EOFError):
                raise self._died() from None
            self._unanswered -= 1
            if failure:
                raise failure
        return reply

    def _died(self) -> RunFailed:
        return RunFailed("The recorder's process died: nothing more can be recorded.")


class RecorderProcess(RecorderClient):
    """The recorder's process, and this process's connection to it.

    It starts at once and imports MLflow; it touches no store before `prepare`. Without a call to
    `close` it ends by itself when all processes that are connected to it have ended.
    """

    def __init__(self) -> None:
        """Start the process."""
        self._registration: Path | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.tracking.recorder_process", str(theirs.fileno())],
                cwd=ROOT,
                env=ENVIRONMENT | os.environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for the training process, which then ends its runs in order.
                start_new_session=True,
            )
        super().__init__(Connection(ours.detach()))

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        reply = super()._call(method, *arguments, **options)
        if method in ("start", "resume") and not self._registration:
            # From now on somebody has to close a run if this process dies.
            with contextlib.suppress(OSError):
                self._registration = register({"store": fingerprint()})
        return reply

    def share(self) -> socket.socket:
        """A connection for another process: to be passed on and then closed here.

        The recorder may still be importing MLflow, and is not waited for, except on macOS.
        """
        ours, theirs = socket.socketpair()
        try:
            with deferred(), theirs:
                if sys.platform == "darwin":
                    # There the receipt comes at once, through this very connection.
                    self._received()
                self._send("connect")
                try:
                    send_handle(self._connection, theirs.fileno(), self._process.pid)
                except (OSError, RuntimeError):
                    # It may be waiting for the handle, and would take it for what is sent next.
                    self._connection.close()
                    raise self._died() from None
        except BaseException:
            ours.close()
            raise
        return ours

    def let_go(self) -> None:
        """In a forked process: close the connection, which is the parent's."""
        self._connection.close()

    def close(self) -> None:
        """End the process; runs that are still open end as interrupted.

        What a tracking server has not taken by now stays on disk, and the user is told.
        """
        with contextlib.suppress(RunFailed):
            if self._used and (waiting := self.send_waiting()):
                warnings.warn(
                    f"the tracking server is away: {waiting} writes wait in mlruns/spool. "
                    "Send them when it is back: python -m harness.sync",
                    stacklevel=2,
                )
        self._connection.close()
        if not self._used:
            # It may still be importing MLflow, for a request that was refused meanwhile.
            self._process.kill()
        self._process.wait()
        if self._registration:
            self._registration.unlink(missing_ok=True)


def serve(first: Connection) -> None:
    """Answer requests until all other ends are closed, of the first connection and of shared ones.

    The runs that were begun through a connection end as interrupted when it closes on them.
    """
    from harness.tracking.recorder import MlflowRecorder

    recorder = MlflowRecorder()
    begun: dict[Connection, set[str]] = {first: set()}
    while begun:
        heard = wait(list(begun), timeout=IDLE_SECONDS if recorder.waiting else None)
        if not heard:
            recorder.send_waiting()
        for connection in heard:
            assert isinstance(connection, Connection)
            try:
                request = connection.recv()
                if request[0] == "connect":
                    begun[Connection(recv_handle(connection))] = set()
                    connection.send((None, None))
                else:
                    connection.send(_answer(recorder, request, begun[connection]))
            except (EOFError, OSError):
                recorder.abandon(begun.pop(connection))
    recorder.send_waiting(at_once=True)


def _answer(
    recorder: Any, request: tuple[str, Any, Any], begun: set[str]
) -> tuple[Exception | None, Any]:
    """Carry a request out: what went wrong, if anything did, and what it returned."""
    method, arguments, options = request
    try:
        reply = getattr(recorder, method)(*arguments, **options)
    except (BadRequest, RunFailed) as error:
        return error, None
    except Exception as error:  # whatever it is, the training process must hear of it
        reason = mask(str(error)).partition("\n")[0]
        message = f"The record could not be written: {type(error).__name__}: {reason}"
        return RunFailed(message), None
    if method == "start":
        begun.add(reply)
    elif method == "resume":
        begun.add(arguments[0])
    elif method == "finish":
        begun.discard(arguments[0])
    return None, reply


def main() -> None:
    """Serve on the socket whose file descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))
    sys.stderr.flush()
    # Interpreter exit takes up to a second after MLflow; everything is on disk by now.
    os._exit(0)


if __name__ == "__main__":
    main()
