"""What a run leaves behind, as plain data, and the narrow interface that writes it.

Nothing here knows MLflow: records cross the border to the process that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.base.inspection import Inspection

Kind = Literal["run", "group", "study", "trial", "confirm", "verify"]

Outcome = Literal["completed", "pruned", "diverged", "interrupted", "failed"]


@dataclass(frozen=True)
class DataRecord:
    """A set of images that a run saw.

    Attributes:
        context: what it was used for: `training`, `validation` or `test`.
        digest: SHA-256 of the arrays, in hexadecimal.
        size: number of images.
    """

    name: str
    context: str
    digest: str
    size: int


@dataclass(frozen=True)
class RunRecord:
    """Everything about a run that is known before its first epoch.

    Attributes:
        experiment: name of MLflow's experiment: that of the harness's experiment or study.
        name: what the run is called in lists.
        parameters: every field of the experiment and every setting that changes the numbers.
        fields: the fields alone, enough to make the experiment again.
        tags: without their prefix `harness.`.
        settings: the other settings of the run, for `experiment.json`.
        command: the command line, as `sys.argv` gives it.
        about: what the experiment or study is, in Markdown, for its page in the store.
        parent: id of the run that this one belongs to.
        user_tags: tags that the user gave, with their whole names.
        trained: name of the harness's experiment; `experiment` unless given.
    """

    experiment: str
    name: str
    kind: Kind
    parameters: dict[str, Any]
    fields: dict[str, Any]
    tags: dict[str, str]
    data: tuple[DataRecord, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    about: str = ""
    parent: str | None = None
    user_tags: dict[str, str] = field(default_factory=dict)
    system_metrics: bool = False
    trained: str = ""


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it.

    Attributes:
        experiment: name of the harness's experiment.
        fields: of the experiment.
        settings: how it was computed.
        tags: without their prefix `harness.`.
        data: the sets of images that it saw.
        history: the metrics of each epoch that is recorded.
        is_described: False where its process died before its parameters and files were recorded.
    """

    run_id: str
    kind: str
    outcome: str
    experiment: str
    fields: dict[str, Any]
    settings: dict[str, Any]
    tags: dict[str, str]
    data: tuple[DataRecord, ...]
    history: dict[int, dict[str, float]]
    is_described: bool = True

    @property
    def epochs(self) -> frozenset[int]:
        """The epochs that are recorded."""
        return frozenset(self.history)


@dataclass(frozen=True)
class ModelRecord:
    """An exported network, ready to be logged.

    Attributes:
        path: a file written by `torch.export.save`; the caller deletes it.
        example: images (b, 1, 28, 28) as nested lists of float, b > 1.
        step: the epoch after which it was exported.
    """

    path: Path
    torch_version: str
    example: list[Any]
    step: int


@dataclass(frozen=True)
class FiguresRecord:
    """What a run's figures show.

    Attributes:
        history: each epoch with its metrics.
        inspection: the predictions of one evaluation pass after training.
    """

    title: str
    dataset: str
    class_names: tuple[str, ...]
    history: list[tuple[int, dict[str, float]]]
    inspection: Inspection


class Recorder(Protocol):
    """Writes runs; each call returns when what it was given is on disk (or on the server)."""

    def prepare(self) -> None:
        """Open the store, creating it on first use."""

    def start(self, record: RunRecord) -> str:
        """Begin a run and return its id."""

    def stored(self, run_id: str) -> StoredRun:
        """Read a run back; `last` is the latest that has not completed."""

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """Read one of a run's artifacts by its path among them; None where it has none such."""

    def resume(
        self,
        run_id: str,
        owner: str,
        allowed: Sequence[str] = (),
        record: RunRecord | None = None,
    ) -> None:
        """Go on with a run that had ended, in another process's hands.

        Args:
            allowed: what has changed since it began, and so is behind its numbers as well.
            record: to describe it by, where that was cut off.
        """

    def artifacts(self, run_id: str, files: dict[str, bytes]) -> None:
        """Keep files with a run, by their path among its artifacts."""

    def epoch(self, run_id: str, epoch: int, metrics: dict[str, float]) -> None:
        """Record one epoch's metrics in one batch."""

    def figures(self, run_id: str, record: FiguresRecord) -> None:
        """Draw a run's figures and keep them; may return before that is done."""

    def model(self, run_id: str, model: ModelRecord) -> float:
        """Log the network that the run ends with; return the seconds that took."""

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

    def settle(self, parent: str, outcomes: dict[str, str]) -> None:
        """Give a run's children the outcomes that are known elsewhere, by run id."""
