"""The recorder in a process of its own: it imports MLflow while the training process imports torch.

Messages go through one connection. The process that sent them may die at any moment: its end of the
connection closes then, and the recorder ends its runs as interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base import streams
from harness.base.channel import Connection, inherited_connection, start_module
from harness.base.errors import BadRequest, RecordLost, RunFailed
from harness.base.ownership import register
from harness.base.privacy import mask
from harness.base.signals import deferred
from harness.tracking.messages import Message, ReopenRun, Reply, SendWaiting, StartRun
from harness.tracking.store_address import fingerprint

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's defaults would let a server that is away hold up the start for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    # The training needs the cores; the recorder computes nothing.
    "OMP_NUM_THREADS": "1",
}
"""What the recorder's process adds to its environment, unless the user has set it."""

IDLE_SECONDS = 1.0
"""How often the recorder looks after the rest while no message arrives."""


class RecorderProcess:
    """A recorder that is another process; see `harness.tracking.messages.Recorder`.

    The process starts at once and imports MLflow. It touches no store before the first message.
    Without a call to `close` it ends by itself after this process has ended.
    """

    def __init__(self) -> None:
        """Start the process."""
        self._start()
        self._registration: Path | None = None
        self._used = False

    def _start(self) -> None:
        self._process, self._connection = start_module(
            "harness.tracking.recorder_process", environment=ENVIRONMENT | os.environ
        )

    def send(self, message: Message[Reply]) -> Reply:
        """Carry out a message after all earlier posts, and return its answer; see `Recorder`."""
        reply: Reply = self._request(message)
        self._register(message)
        return reply

    def post(self, message: Message[Any]) -> None:
        """Carry out a message without waiting. The next `send` or `wait` raises its failure."""
        with deferred():
            self._put(message, is_answered=False)
        self._register(message)

    def wait(self) -> None:
        """Wait until everything posted is on disk or on the server; see `Recorder`."""
        self._request(None)

    def forget(self) -> None:
        """In a forked process: close the connection, which belongs to the parent."""
        self._connection.close()

    def close(self) -> None:
        """End the process. Runs that are still open end as interrupted.

        Writes that a tracking server has not taken stay on disk, and a warning says so.
        """
        if self._used:
            with contextlib.suppress(RunFailed, BadRequest):
                self.wait()
            with contextlib.suppress(RunFailed):
                if waiting := self.send(SendWaiting()):
                    warnings.warn(
                        f"the tracking server is away: {waiting} writes wait in mlruns/spool. "
                        "Send them when it is back: python -m harness.sync",
                        stacklevel=2,
                    )
        self._connection.close()
        if not self._used:
            # It may still be importing MLflow, for a command that was refused meanwhile.
            self._process.kill()
        self._process.wait()
        if self._registration:
            self._registration.unlink(missing_ok=True)

    def _request(self, message: Message[Any] | None) -> Any:
        # A half-read answer would be taken for the answer to the next message.
        with deferred():
            self._put(message, is_answered=True)
            try:
                failure, reply = self._connection.recv()
            except (OSError, EOFError):
                raise _died() from None
        if isinstance(failure, RecordLost):
            # MLflow keeps its connections to the deleted file; a new process has none.
            self._connection.close()
            self._process.wait()
            self._start()
        if failure:
            raise failure
        return reply

    def _put(self, message: Message[Any] | None, *, is_answered: bool) -> None:
        self._used = True
        try:
            self._connection.send((message, is_answered))
        except OSError:
            raise _died() from None

    def _register(self, message: Message[Any]) -> None:
        """From the first run on, somebody has to close it if this process and the recorder die."""
        if isinstance(message, (StartRun, ReopenRun)) and not self._registration:
            with contextlib.suppress(RunFailed):
                self._registration = register({"store": fingerprint()})


def _died() -> RunFailed:
    return RunFailed("The recorder's process died: nothing more can be recorded.")


def serve_messages(connection: Connection) -> None:
    """Carry out messages until the other end is closed, then end the runs that are still open."""
    # Imported here, so that the processes which only send messages do not import MLflow.
    from harness.tracking.recorder import MlflowRecorder

    recorder = MlflowRecorder()
    failure: Exception | None = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            has_message = connection.poll(IDLE_SECONDS)
            _, error = _attempt(recorder.look_after)
            failure = failure or error
            if not has_message:
                continue
            message, is_answered = connection.recv()
            reply: Any = None
            # A failed post is the answer to the next message that has one, which is not tried.
            if message and not (failure and is_answered):
                reply, error = _attempt(functools.partial(recorder.send, message))
                failure = failure or error
            if is_answered:
                connection.send((failure, reply))
                failure = None
    recorder.close()


def _attempt(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The result of a call, or its failure as the sender of the message shall see it."""
    try:
        return call(), None
    except (BadRequest, RunFailed) as error:
        return None, error
    except Exception as error:  # the training process must hear of any failure
        reason = mask(str(error)).partition("\n")[0]
        text = f"The record could not be written: {type(error).__name__}: {reason}"
        return None, RunFailed(text)


def main() -> None:
    """Serve on the connection that the first argument names."""
    streams.prepare()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.formatwarning = lambda message, *_: f"warning: {mask(str(message))}\n"
    serve_messages(inherited_connection(sys.argv[1]))
    sys.stderr.flush()
    # Interpreter exit takes up to a second after MLflow; everything is on disk by now.
    os._exit(0)


if __name__ == "__main__":
    main()
