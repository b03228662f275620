"""What a recorder can be asked to do: one typed message for each operation.

`Recorder.send` takes any of them. Where the recorder is another process, the messages are what
crosses the border; `harness.tracking.recorder` answers them in one `match`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from harness.tracking.schema import FiguresRecord, ModelRecord, Outcome, RunRecord

Reply = TypeVar("Reply")


class Message(Generic[Reply]):
    """A request to the recorder; `Reply` is the type of the answer."""


@dataclass(frozen=True)
class OpenStore(Message[None]):
    """Open the store, creating it on first use; recover what dead processes left open."""


@dataclass(frozen=True)
class StartRun(Message[str]):
    """Begin a run. The answer is its id."""

    record: RunRecord


@dataclass(frozen=True)
class ReopenRun(Message[None]):
    """Go on with a run that had ended, owned by another process from now on.

    Attributes:
        allowed: what has changed since the run began, and so is behind its numbers as well.
        record: describes the run again, if its first process died before it had done so.
    """

    run_id: str
    owner: str
    allowed: tuple[str, ...] = ()
    record: RunRecord | None = None


@dataclass(frozen=True)
class LogEpoch(Message[None]):
    """Record the metrics of one epoch in one batch."""

    run_id: str
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class SaveArtifacts(Message[None]):
    """Keep files with a run, by their path among its artifacts."""

    run_id: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class DrawFigures(Message[None]):
    """Draw the figures of a run and keep them."""

    run_id: str
    record: FiguresRecord


@dataclass(frozen=True)
class LogModel(Message[float]):
    """Log the network that a run ends with. The answer is the seconds that took."""

    run_id: str
    model: ModelRecord


@dataclass(frozen=True)
class EndRun(Message[None]):
    """End a run.

    Attributes:
        epoch: the step of `metrics`, which are about the whole run.
        tags: without their prefix `harness.`.
        description: Markdown.
    """

    run_id: str
    outcome: Outcome
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class ReconcileChildren(Message[None]):
    """Make the children of a run agree with what is known elsewhere.

    Attributes:
        outcomes: by run id, the outcome (or `running`) of each child that is known elsewhere. Any
            other child that a dead process left open was interrupted.
    """

    parent: str
    outcomes: dict[str, str]


@dataclass(frozen=True)
class Recovered:
    """What a recovery came to.

    Attributes:
        sent: writes of dead processes that the server has taken now.
        waiting: writes that it still has not taken.
    """

    sent: int
    waiting: int


@dataclass(frozen=True)
class RecoverRuns(Message[Recovered]):
    """Send what dead processes could not, and close the runs that they left open."""


@dataclass(frozen=True)
class SendWaiting(Message[int]):
    """Send what a server could not take, if it is back. The answer is how many writes wait."""


class Recorder(Protocol):
    """Writes runs to a store."""

    def send(self, message: Message[Reply]) -> Reply:
        """Carry a message out. Returns when what it holds is on disk (or on the server).

        Raises:
            RunFailed: it could not be carried out, or an earlier `post` could not.
            BadRequest: it asks for what cannot be.
        """

    def post(self, message: Message[Any]) -> None:
        """Carry a message out without waiting; the next `send` or `wait` raises what went wrong."""

    def wait(self) -> None:
        """Wait until everything that was posted is on disk.

        Raises:
            RunFailed: one of the posts could not be carried out.
        """
