"""Stand-ins that tests drive by hand: a recorder in memory, trainings whose numbers are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.base.inspection import Inspection
from harness.execution.events import Begun, Ending, Event
from harness.execution.training_group import TrainingTask
from harness.tracking.messages import LogModel, Message, Reply, SendWaiting, StartRun
from harness.tracking.schema import DataRecord, Outcome
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult

MACHINE = {
    **{"device": "cpu", "device_name": "made up", "processor": "made up", "threads": "1"},
    **{"torch": "none", "cuda": "none"},
}

DATA = (DataRecord("digits", "training", "0" * 64, 100), DataRecord("digits", "test", "1" * 64, 50))


class MemoryRecorder:
    """Keeps every message in its order; run ids count up."""

    def __init__(self, fails: Callable[[Message[Any]], Exception | None] = lambda _: None) -> None:
        self.messages: list[Message[Any]] = []
        self.fails = fails

    def send(self, message: Message[Reply]) -> Reply:
        self.post(message)
        answer: Any = None
        match message:
            case StartRun():
                answer = f"run {len(self.of(StartRun))}"
            case LogModel():
                answer = 0.5
            case SendWaiting():
                answer = 0
        return answer  # type: ignore[no-any-return]

    def post(self, message: Message[Any]) -> None:
        if error := self.fails(message):
            raise error
        self.messages.append(message)

    def wait(self) -> None:
        """Everything is kept already."""

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


def epoch(number: int, accuracy: float = 0.5, loss: float = 1.0, on: str = "test") -> EpochResult:
    return EpochResult(
        number,
        {
            **{"train/loss": loss, "train/accuracy": accuracy},
            **{f"{on}/loss": loss, f"{on}/accuracy": accuracy},
            **{"time/train_seconds": 0.2, "time/evaluate_seconds": 0.05},
            "time/examples_per_second": 500.0,
        },
    )


Script = Callable[[Experiment], Sequence[EpochResult | Inspection | Ending | BaseException]]


class ScriptedGroup:
    """Trainings that say what a script says, in turn; an exception in it is raised.

    Attributes:
        log: what the driver asked for, in its order.
    """

    def __init__(self, script: Script, size: int = 1) -> None:
        self.script, self.size = script, size
        self.log: list[tuple[Any, ...]] = []
        self._events: dict[int, Iterator[Event]] = {}
        self._turns: deque[int] = deque()
        self._stopped: dict[int, Outcome] = {}

    def begin(self, index: int, task: TrainingTask) -> None:
        self.log.append(("begin", index))
        self._stopped.pop(index, None)
        self._events[index] = self._train(index, task)
        self._turns.append(index)

    def advance(self, timeout: float | None = None) -> list[tuple[int, Event]]:
        index = self._turns.popleft()
        event = next(self._events[index])
        if not isinstance(event, Ending):
            self._turns.append(index)
        return [(index, event)]

    def stop(self, index: int, outcome: Outcome) -> None:
        self.log.append(("stop", index, outcome))
        self._stopped[index] = outcome

    def state(self, index: int) -> bytes:
        self.log.append(("state", index))
        return b"the state"

    def _train(self, index: int, task: TrainingTask) -> Iterator[Event]:
        yield Begun(MACHINE, DATA)
        for event in self.script(task.experiment):
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Ending):
                return
            if index in self._stopped:
                yield Ending(self._stopped[index])
                return
        yield Ending("completed", weights_sha256="ab" * 32)
