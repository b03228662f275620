"""What a run leaves behind, as plain data.

Nothing here knows MLflow: records cross the border to the process that does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harness.base.inspection import Inspection

Kind = Literal["run", "group", "study", "trial", "confirm", "verify"]

Outcome = Literal["completed", "pruned", "diverged", "interrupted", "failed"]


@dataclass(frozen=True)
class DataRecord:
    """A set of images that a run sees.

    Attributes:
        context: What it is used for: `training`, `validation` or `test`.
        digest: SHA-256 of the arrays, in hexadecimal.
        size: Number of images.
    """

    name: str
    context: str
    digest: str
    size: int


@dataclass(frozen=True)
class RunRecord:
    """Everything that is known about a run before its first epoch.

    Attributes:
        mlflow_experiment: Name of MLflow's experiment: that of the harness's experiment or study.
        experiment: Name of the harness's experiment that is trained.
        name: The run's name in lists.
        parameters: Every field of the experiment and every setting that changes the numbers.
        fields: The fields alone, enough to create the experiment again.
        tags: Without their prefix `harness.`.
        settings: The other settings of the run.
        command: The command line, as `sys.argv` gives it.
        about: The description of the experiment or study, in Markdown, for its page in the store.
        parent: Id of the run that this one belongs to.
        user_tags: Tags that the user gave, with their whole names.
    """

    mlflow_experiment: str
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
        content: What `torch.export.save` wrote.
        example: Images (b, 1, 28, 28) as nested lists of float, b > 1.
        step: The epoch after which it was exported.
    """

    content: bytes
    torch_version: str
    example: list[Any]
    step: int


@dataclass(frozen=True)
class FiguresRecord:
    """What a run's figures show.

    Attributes:
        history: Each epoch with its metrics.
        inspection: The predictions of one evaluation pass after training.
    """

    title: str
    dataset: str
    class_names: tuple[str, ...]
    history: list[tuple[int, dict[str, float]]]
    inspection: Inspection
