"""A worker: a process that trains what it is sent, one training at a time.

A pool starts it, not a person. It hears what to train on its channel and sends what happens. It
holds nothing that could be lost, and ends at once when the channel closes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from harness.base.channel import Connection, inherited_connection
from harness.base.discovery import put_project_first
from harness.execution.events import Ending
from harness.execution.preparation import DataSource
from harness.execution.training_group import LocalGroup, TrainingTask
from harness.training.loop import EpochResult
from harness.workers.pool import (
    AskState,
    AtWork,
    BeginTraining,
    FromWorker,
    GoOn,
    StopTraining,
    ToWorker,
    TrainingState,
    WorkerSetup,
)


class Channel:
    """The worker's end of the connection to the process that drives it."""

    def __init__(self, connection: Connection) -> None:
        """Listen in a thread: the process ends with the channel, even in the middle of an epoch."""
        self._connection = connection
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Callable[[], ToWorker]:
        """The next message, as soon as there is one; it may take long to open.

        Opening it imports the modules of an experiment, and raises what they raise.
        """
        content = self._received.get()
        return lambda: pickle.loads(content)

    def send(self, message: FromWorker) -> None:
        """Send what happened."""
        with contextlib.suppress(OSError):  # the listening thread ends the process
            self._connection.send(message)

    def _listen(self) -> None:
        while True:
            try:
                self._received.put(self._connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)


def serve(connection: Connection, setup: WorkerSetup) -> NoReturn:
    """Train what comes through a connection, until it closes."""
    channel = Channel(connection)
    device = setup.execution.apply()
    group = LocalGroup(DataSource(Path(setup.data_root)), setup.execution, device)
    while True:
        open_message = channel.receive()
        started = time.monotonic()
        channel.send(AtWork(0.0))
        match open_message():
            case BeginTraining(task):
                _train(group, task, channel, started)


def serve_forked(
    connection: Connection, setup: WorkerSetup, errors: int, close_others: Callable[[], None]
) -> NoReturn:
    """What a forked process does: it never returns into the command that it is forked from."""
    if sys.platform == "win32":
        raise RuntimeError("this system cannot fork")
    try:
        # Ctrl-C is for the process that drives, which then ends its workers.
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.dup2(errors, 1)  # what an experiment prints is shown if this process dies
        os.dup2(errors, 2)
        close_others()
        serve(connection, setup)
    except SystemExit as error:
        print(f"SystemExit: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _train(group: LocalGroup, task: TrainingTask, channel: Channel, started: float) -> None:
    group.begin(0, task)
    while True:
        for _, event in group.advance():
            channel.send(event)
            if isinstance(event, Ending):
                return
            if isinstance(event, EpochResult):
                stopped = time.monotonic()
                _obey(group, channel)
                started += time.monotonic() - stopped  # waiting is no work
                channel.send(AtWork(time.monotonic() - started))


def _obey(group: LocalGroup, channel: Channel) -> None:
    """Answer messages between two epochs, until one says to go on or to stop."""
    while True:
        match channel.receive()():
            case GoOn():
                return
            case StopTraining(outcome):
                group.stop(0, outcome)
                return
            case AskState():
                channel.send(TrainingState(group.state(0)))


def main() -> NoReturn:
    """Serve the connection that the command line names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = inherited_connection(sys.argv[1])
    put_project_first()
    try:
        serve(connection, connection.recv())
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
