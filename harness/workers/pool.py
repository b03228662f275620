"""Worker pools: what one must offer, what it carries, and a pool as one training group.

An engine is one file beside this one that implements `WorkerPool`. Whoever drives keeps the claims,
the record and their passwords; a worker knows nothing but its trainings.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from harness.base.errors import RunFailed
from harness.execution.events import Ending, Event
from harness.execution.training_group import TrainingTask
from harness.tracking.schema import Outcome
from harness.training.device import Execution
from harness.training.loop import EpochResult


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs before its first training."""

    execution: Execution
    data_root: str


@dataclass(frozen=True)
class BeginTraining:
    """To a worker: train this; its events come back."""

    task: TrainingTask


@dataclass(frozen=True)
class GoOn:
    """To a worker that has finished an epoch: train the next one."""


@dataclass(frozen=True)
class StopTraining:
    """To a worker that has finished an epoch: end the training with this outcome."""

    outcome: Outcome


@dataclass(frozen=True)
class AskState:
    """To a worker that has finished an epoch: send the training's state."""


@dataclass(frozen=True)
class TrainingState:
    """From a worker: the state of its training, as `checkpoint.encode` returns it."""

    content: bytes


@dataclass(frozen=True)
class AtWork:
    """From a worker: it begins to work on its training, or goes on with it after an epoch.

    Attributes:
        seconds: that it has worked on it before. What it waited between epochs does not count.
    """

    seconds: float


@dataclass(frozen=True)
class Died:
    """From the pool, of a worker: its process has ended.

    Attributes:
        how: the exit status or the signal, and the last words on standard error.
    """

    how: str


ToWorker = BeginTraining | GoOn | StopTraining | AskState
FromWorker = Event | TrainingState | AtWork | Died


LONGEST_WAIT = 60.0
"""Seconds; systems refuse to wait for years."""


class WorkerPool(Protocol):
    """Workers by number, each with a channel."""

    def start(self, number: int, setup: WorkerSetup) -> None:
        """Start a worker, or start it again after it has died; returns before it is ready."""

    def send(self, number: int, message: ToWorker) -> None:
        """Send a worker a message; one that has died does not read it."""

    def receive(self, timeout: float | None = None) -> tuple[int, FromWorker] | None:
        """The next message of any worker, or its death; None after `timeout` seconds."""

    def kill(self, number: int) -> None:
        """End a worker at once, whatever it does, with all that it has started."""

    def close(self) -> None:
        """End all workers at once; they hold nothing that could be lost."""


class PoolGroup:
    """The workers of a pool as a training group: the index of a training is its worker."""

    def __init__(self, pool: WorkerPool, size: int, setup: WorkerSetup) -> None:
        """Start `size` workers."""
        self.pool, self.size, self.setup = pool, size, setup
        self._alive = set(range(size))
        self._busy: dict[int, TrainingTask] = {}
        self._deadlines: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._later: deque[tuple[int, FromWorker]] = deque()
        for number in range(size):
            pool.start(number, setup)

    def begin(self, index: int, task: TrainingTask) -> None:
        """See `TrainingGroup`; a worker that has died is started again."""
        if index not in self._alive:
            self.pool.start(index, self.setup)
            self._alive.add(index)
        self._busy[index] = task
        self.pool.send(index, BeginTraining(task))

    def advance(self, timeout: float | None = None) -> list[tuple[int, Event]]:
        """See `TrainingGroup`."""
        for index in self._waiting:
            self.pool.send(index, GoOn())
        self._waiting.clear()
        while not self._later and self._hear(timeout):
            pass
        if not self._later:
            return []
        index, message = self._later.popleft()
        match message:
            case Died(how):
                self._alive.discard(index)
                if not self._busy.pop(index, None):
                    return []
                reason = f"worker {index} died ({how})"
                return [(index, Ending("interrupted", reason=reason, is_lost=True))]
            case TrainingState() | AtWork():
                return []  # an answer that nobody waits for any more
            case EpochResult():
                self._waiting.add(index)
            case Ending():
                self._busy.pop(index, None)
        return [(index, message)]

    def stop(self, index: int, outcome: Outcome) -> None:
        """See `TrainingGroup`."""
        self._waiting.discard(index)
        self.pool.send(index, StopTraining(outcome))

    def state(self, index: int) -> bytes:
        """See `TrainingGroup`; what other workers send meanwhile is kept for `advance`.

        Raises:
            RunFailed: the worker died.
        """
        self.pool.send(index, AskState())
        while True:
            received = self._receive(None)
            assert received
            number, message = received
            if number == index and isinstance(message, TrainingState):
                return message.content
            if not isinstance(message, AtWork):
                self._later.append(received)
            if number == index and isinstance(message, Died):
                raise RunFailed(f"worker {index} died ({message.how})")

    def _receive(self, timeout: float | None) -> tuple[int, FromWorker] | None:
        """The next message of any worker; it says until when that may work."""
        received = self.pool.receive(timeout)
        if received:
            index, message = received
            match message:
                case AtWork(seconds):
                    task = self._busy.get(index)
                    if task and task.time_limit is not None:
                        self._deadlines[index] = time.monotonic() + task.time_limit - seconds
                case EpochResult() | Ending() | Died():
                    self._deadlines.pop(index, None)
        return received

    def _hear(self, timeout: float | None) -> bool:
        """Receive something for `advance`, and end what takes too long; False if nothing came.

        A result that has arrived is in time, however late this process comes to read it: all that
        has arrived is read before a worker is killed.
        """
        if self._deadlines:
            left = max(0.0, min(self._deadlines.values()) - time.monotonic())
            timeout = min(left, LONGEST_WAIT if timeout is None else timeout, LONGEST_WAIT)
        received = self._receive(timeout)
        now = time.monotonic()
        found = bool(received)
        while received:
            if not isinstance(received[1], AtWork):
                self._later.append(received)
            is_late = any(deadline <= now for deadline in self._deadlines.values())
            received = self._receive(0.0) if is_late else None
        for index in [index for index, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[index]
            self.pool.kill(index)
            self._alive.discard(index)
            reason = f"took longer than {self._busy[index].time_limit:g} s"
            self._later.append((index, Ending("timed out", reason=reason)))
        return found
