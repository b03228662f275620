"""The recorder in a process of its own: it opens MLflow while the training process imports torch.

Requests go through a socket, one at a time, and are answered when they are on disk. When the
training process dies, its end of the socket closes, and the recorder ends its runs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from harness.errors import BadRequest, RunFailed
from harness.privacy import mask
from harness.project import ROOT
from harness.tracking.record import ModelRecord, Outcome, RunRecord

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # A server that is away must not hold up the start for minutes, as MLflow's defaults do.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    # The training needs the cores; the recorder computes nothing.
    "OMP_NUM_THREADS": "1",
}
"""What the recorder's process adds to its environment, where the user has not set it."""


class RecorderProcess:
    """A recorder whose calls are carried out by another process.

    The process starts at once and imports MLflow; it touches no store before `prepare`. Without a
    call to `close` it ends by itself when this process does.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.tracking.process", str(theirs.fileno())],
            cwd=ROOT,
            env=ENVIRONMENT | os.environ,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for the training process, which then ends its runs in order.
            start_new_session=True,
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self._unanswered = 0

    def prepare(self) -> None:
        """Open the store; returns at once, what goes wrong is raised by the next call."""
        self._send("prepare")

    def start(self, record: RunRecord) -> str:
        """Begin a run and return its id."""
        run_id: str = self._call("start", record)
        return run_id

    def epoch(self, run_id: str, epoch: int, metrics: dict[str, float]) -> None:
        """Record one epoch's metrics; they are on disk when this returns."""
        self._call("epoch", run_id, epoch, metrics)

    def model(self, run_id: str, model: ModelRecord) -> None:
        """Log the network that the run ends with."""
        self._call("model", run_id, model)

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

    def close(self) -> None:
        """End the process; runs that are still open end as interrupted."""
        self._connection.close()
        self._process.wait()

    def kill(self) -> None:
        """End the process at once; only right before anything was recorded."""
        self._process.kill()
        self.close()

    def peak_memory_bytes(self) -> int:
        """The most memory that the recorder's process has taken."""
        return int(self._call("peak_memory_bytes"))

    def _send(self, method: str, *arguments: Any, **options: Any) -> None:
        try:
            self._connection.send((method, arguments, options))
        except OSError:
            raise self._died() from None
        self._unanswered += 1

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        self._send(method, *arguments, **options)
        reply: Any = None
        while self._unanswered:
            try:
                failure, reply = self._connection.recv()
            except (OSError, EOFError):
                raise self._died() from None
            self._unanswered -= 1
            if failure:
                raise RunFailed(failure)
        return reply

    def _died(self) -> RunFailed:
        return RunFailed(
            f"The recorder's process ended with status {self._process.wait()}: "
            "nothing more can be recorded."
        )


def serve(connection: Connection) -> None:
    """Answer requests until the other end closes, then end what is still open."""
    from harness.tracking.recorder import MlflowRecorder

    recorder = MlflowRecorder()
    while True:
        try:
            method, arguments, options = connection.recv()
        except (EOFError, OSError):
            recorder.abandon()
            return
        failure, reply = "", None
        try:
            reply = getattr(recorder, method)(*arguments, **options)
        except (BadRequest, RunFailed) as error:
            failure = str(error)
        except Exception as error:  # whatever it is, the training process must hear of it
            reason = mask(str(error)).partition("\n")[0]
            failure = f"The record could not be written: {type(error).__name__}: {reason}"
        try:
            connection.send((failure, reply))
        except OSError:
            recorder.abandon()
            return


def main() -> None:
    """Serve on the socket whose file descriptor is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))
    sys.stderr.flush()
    # Interpreter exit takes up to a second after MLflow; everything is on disk by now.
    os._exit(0)


if __name__ == "__main__":
    main()
