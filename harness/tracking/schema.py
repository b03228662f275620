"""What a run leaves behind, as plain data, and the narrow interface that writes it.

Nothing here knows MLflow: records cross the border to the process that does.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.base.ownership import Owner

if TYPE_CHECKING:  # it imports NumPy, and whoever only reads runs needs none
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
    """A run as the store holds it.

    Attributes:
        mlflow_experiment: MLflow's experiment: the harness's experiment, or the study.
        start: milliseconds since 1970.
        end: the same; None while it runs.
        tags: all of them, with their whole names.
        params: text, as MLflow holds it; `parameters` has the values.
        metrics: the last value of each.
        best: over all epochs, the lowest or highest value of each metric that has a direction.
        num_epochs: the last recorded epoch; None if there is none.
    """

    run_id: str
    name: str
    mlflow_experiment: str
    start: int
    end: int | None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    num_epochs: int | None = None

    def tag(self, name: str) -> str | None:
        """A tag of the harness, by its name without the prefix `harness.`."""
        return self.tags.get(f"harness.{name}")

    @property
    def is_ours(self) -> bool:
        """Whether the harness recorded the run."""
        return bool(self.kind)

    @property
    def kind(self) -> str:
        """One of `Kind`; "" if the harness did not record the run."""
        return self.tag("kind") or ""

    @property
    def outcome(self) -> str:
        """One of `Outcome`, or `running`; "" if the harness did not record the run."""
        return self.tag("outcome") or ""

    @property
    def experiment(self) -> str:
        """The harness's experiment; "" if the harness did not record the run."""
        return self.tag("experiment") or ""

    @property
    def command(self) -> str:
        """The command line that began the run."""
        return self.tag("command") or ""

    @property
    def parent(self) -> str | None:
        """Id of the group or study that the run belongs to."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def owner(self) -> Owner | None:
        """The process that trains the run, or did."""
        text = self.tag("owner")
        return Owner.from_text(text) if text else None

    @functools.cached_property
    def data(self) -> dict[str, str]:
        """SHA-256 of the images that the run saw, by `training`, `validation`, `test`."""
        return {
            name.removeprefix("harness.data.").removesuffix("_sha256"): digest
            for name, digest in self.tags.items()
            if name.startswith("harness.data.")
        }

    @property
    def dataset(self) -> str | None:
        """Name of the data set."""
        return self.params.get("dataset")

    @property
    def seed(self) -> int | None:
        """The seed; None for a group of seeds."""
        seed = self.parameters.get("seed")
        return seed if type(seed) is int else None

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the experiment, typed."""
        return self._values("fields")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the run, typed."""
        return self._values("settings")

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """Parameters with the type that they were recorded with.

        Text that looks like a number stays text. If no type is recorded, a parameter is a number
        only if writing that number gives the same text.
        """
        typed = self._values("parameters")
        untyped = {name: text for name, text in self.params.items() if name not in typed}
        return typed | {name: _value(text) for name, text in untyped.items()}

    def _values(self, tag: str) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self.tag(tag) or "{}")
        except ValueError:  # MLflow cuts a very long tag off
            return {}
        return values


def _value(text: str) -> Any:
    """The number or truth value that is written as this text; otherwise the text."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            if str(kind(text)) == text != "nan":
                return kind(text)
    return text


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
