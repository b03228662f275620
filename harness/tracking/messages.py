"""What a recorder can be asked to do: one typed message for each operation.

`Recorder.send` takes any of them. If the recorder is another process, messages are what crosses the
border. `MlflowRecorder` in `harness.tracking.recorder` answers them in one `match`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

from harness.tracking.schema import FiguresRecord, ModelRecord, Outcome, RunRecord

Reply = TypeVar("Reply")


class Message(Generic[Reply]):
    """A request to the recorder; `Reply` is the type of the answer."""


@dataclass(frozen=True)
class OpenStore(Message[str]):
    """Open the store, creating it on first use, and close the runs that dead processes left open.

    It also reads the commit and the changes of the source, which every later run records. The
    answer is what the user should know of them, or "".
    """


@dataclass(frozen=True)
class StartRun(Message[str]):
    """Start a run. The answer is its id."""

    record: RunRecord


@dataclass(frozen=True)
class ReopenRun(Message[None]):
    """Continue a run that has ended; from now on another process owns it.

    Attributes:
        owner: The new owner, as `harness.base.ownership.Owner` writes it.
        allowed: What has changed since the run started, with the user's permission. It is recorded.
        record: Describes the run again. Needed if its first process died before it could do so.
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
    """Keep files with a run. The keys are their paths among the run's artifacts."""

    run_id: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class DrawFigures(Message[None]):
    """Draw the figures of a run and keep them."""

    run_id: str
    record: FiguresRecord


@dataclass(frozen=True)
class LogModel(Message[float]):
    """Log the trained network of a run. The answer is how many seconds that took."""

    run_id: str
    model: ModelRecord


@dataclass(frozen=True)
class EndRun(Message[None]):
    """End a run.

    Attributes:
        epoch: The step of `metrics`, which describe the whole run.
        tags: Without their prefix `harness.`.
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
    """Make the children of a run agree with what a study's storage knows about them.

    A child that is not mentioned is set to interrupted if its process has died.

    Attributes:
        outcomes: The outcome of each known child, or `running`, by run id.
    """

    parent: str
    outcomes: dict[str, str]


@dataclass(frozen=True)
class Recovered:
    """The result of a recovery.

    Attributes:
        sent: How many writes of dead processes the server has now accepted.
        waiting: How many it still has not.
        elsewhere: Ids of running runs whose process cannot be judged from here.
    """

    sent: int
    waiting: int
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecoverRuns(Message[Recovered]):
    """Send what dead processes could not send, and close the runs that they left open."""


@dataclass(frozen=True)
class SendWaiting(Message[int]):
    """Send the writes that wait for a server. The answer is how many are still waiting."""


class Recorder(Protocol):
    """Writes runs to a store."""

    def send(self, message: Message[Reply]) -> Reply:
        """Carry out a message and return its answer; its content is then on disk or on the server.

        Raises:
            RunFailed: The message, or an earlier post, could not be carried out. After a failed
                post the message itself is not tried.
            BadRequest: The message asks for something impossible.
        """

    def post(self, message: Message[Any]) -> None:
        """Carry out a message without waiting. The next `send` or `wait` raises its failure."""

    def wait(self) -> None:
        """Wait until everything posted is on disk or on the server.

        Raises:
            RunFailed: A post could not be carried out.
            BadRequest: A post asked for something impossible.
        """


class NoRecorder:
    """A recorder that records nothing, for a store that may only be read; a run has the id ""."""

    def send(self, message: Message[Reply]) -> Reply:
        """See `Recorder`; the answer is empty."""
        return cast(Reply, "")

    def post(self, message: Message[Any]) -> None:
        """See `Recorder`."""

    def wait(self) -> None:
        """See `Recorder`."""
