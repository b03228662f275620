"""What a run leaves behind, as plain data.

Nothing here knows MLflow: records cross the border to the process that does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.base.metric_names import JUDGES, SETS, Best
from harness.base.outside_code import OutsideCode
from harness.base.ownership import Owner
from harness.base.provenance import commit_name

if TYPE_CHECKING:  # it imports NumPy, and whoever only reads runs needs none
    from harness.base.inspection import Inspection

Kind = Literal["run", "group", "study", "trial", "confirm", "verify"]

Outcome = Literal[
    "completed", "pruned", "diverged", "collapsed", "timed out", "interrupted", "failed"
]

ENDED: tuple[Outcome, ...] = ("completed", "diverged", "collapsed")
"""Outcomes of runs that have nothing left to train."""

CHANGES = "changes.json"
"""The artifact that lists what had changed since the commit, with digests."""

SOURCE_FILE = "source.py"
"""The artifact that holds the code of an experiment that is in no file of `experiments/`."""

OUTSIDE = "outside"
"""The state of the code, in place of git's, of an experiment that is in no file of the project."""

AllowedChange = Literal["experiment", "data", "device", "processor", "threads", "torch"]
"""What may have changed when a run goes on, at the price of other numbers."""


@dataclass(frozen=True)
class DataRecord:
    """A set of examples that a run sees.

    Attributes:
        context: What it is used for: `training`, `validation` or `test`.
        digest: SHA-256 of the arrays, in hexadecimal.
        size: Number of examples.
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
        modules: Files of the project that the training process has imported.
        code: The experiment's, if it is in no file of `experiments/`.
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
    modules: tuple[str, ...] = ()
    code: OutsideCode | None = None


def examples_file(metric: str) -> str:
    """The artifact with a run's results on single examples; see `ExampleResults`.

    >>> examples_file("test/accuracy")
    'examples/test_accuracy.bin'
    """
    return f"examples/{metric.replace('/', '_')}.bin"


def last_seen(start: int | None, heartbeat: str | None) -> float:
    """When a run's process was last known to be alive, in seconds since 1970.

    Args:
        start: when the run began, in milliseconds since 1970.
        heartbeat: the tag `harness.heartbeat`.
    """
    began = (start or 0) / 1000
    try:
        return max(began, float(heartbeat or 0))
    except ValueError:  # a person's
        return began


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
    def command_words(self) -> tuple[str, ...]:
        """The words of that line; none if it is damaged."""
        try:
            return tuple(shlex.split(self.command))
        except ValueError:
            return ()

    def code_differs(self, other: StoredRun) -> bool:
        """Whether a file that both were trained with has changed between them."""
        ours, theirs = self._values("code"), other._values("code")
        return any(ours[path] != theirs[path] for path in ours.keys() & theirs.keys())

    @property
    def parent(self) -> str | None:
        """Id of the group or study that the run belongs to."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def owner(self) -> Owner | None:
        """The process that trains the run, or did."""
        text = self.tag("owner")
        return Owner.from_text(text) if text else None

    @property
    def is_abandoned(self) -> bool:
        """Whether it is recorded as running, and its process is known to have ended."""
        last = last_seen(self.start, self.tag("heartbeat"))
        return self.outcome == "running" and bool(self.owner and self.owner.is_dead(last))

    @functools.cached_property
    def directions(self) -> dict[str, Best | None]:
        """What is best for each metric, by its name without the part of the data."""
        return self._values("metrics")

    @functools.cached_property
    def objectives(self) -> dict[str, Best]:
        """What a study judges the run by, and what is best for each; empty outside of studies."""
        return self._values("objectives")

    def best_of(self, metric: str) -> Best | None:
        """Whether the highest or the lowest value of a metric such as `test/loss` is best."""
        part, _, name = metric.partition("/")
        own = self.directions.get(name) if part in SETS else None
        return self.objectives.get(metric, own)

    @functools.cached_property
    def objective(self) -> str | None:
        """The metric that judges the run.

        It is the study's, or the first one that the experiment declares with a direction.
        """
        if first := next((name for name in self.objectives if name in self.metrics), None):
            return first
        names = [name for name, best in self.directions.items() if best]
        possible = (f"{part}/{name}" for part in JUDGES for name in names)
        return next((m for m in possible if not math.isnan(self.metrics.get(m, math.nan))), None)

    @functools.cached_property
    def data(self) -> dict[str, str]:
        """SHA-256 of the examples that the run saw, by `training`, `validation`, `test`."""
        return {
            name.removeprefix("harness.data.").removesuffix("_sha256"): digest
            for name, digest in self.tags.items()
            if name.startswith("harness.data.") and name.endswith("_sha256")
        }

    @property
    def data_records(self) -> tuple[DataRecord, ...]:
        """The sets of examples that the run saw."""
        sizes = {context: self.tag(f"data.{context}_size") or "" for context in self.data}
        return tuple(
            DataRecord(
                str(self.dataset),
                context,
                digest,
                int(sizes[context]) if sizes[context].isdecimal() else 0,
            )
            for context, digest in self.data.items()
        )

    @property
    def dataset(self) -> str | None:
        """Name of the data set."""
        return self.params.get("dataset")

    @property
    def commit(self) -> str | None:
        """The commit in 8 letters, with `+` after it if there were changes; None if foreign.

        The experiment's own code is named if it was in no file of `experiments/`.
        """
        commit, origin = self.tag("git_commit"), self.tag("code_origin")
        if not commit:
            return None
        return commit_name(commit, self.project_state) + (f" and {origin}" if origin else "")

    @property
    def is_outside(self) -> bool:
        """Whether the experiment's code was in no file of the project."""
        return self.tag("git_state") == OUTSIDE

    @property
    def project_state(self) -> str | None:
        """Whether the project was as in its commit: `clean`, `dirty` or `unknown`."""
        return self.tag("project_state") or self.tag("git_state")

    @property
    def class_digest(self) -> str:
        """The digest of the experiment's class, if it was in no file of the project."""
        return str(next(iter(self._values("code").values()), "")) if self.is_outside else ""

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
        return values if isinstance(values, dict) else {}


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
        content: What `torch.export.save` wrote.
        example: Inputs (b, ...) as nested lists, b > 1.
        input_type: NumPy's name of their type.
        is_scaled: Whether they were bytes, which became numbers in [0, 1].
        output_shape: Shape of one output.
        output_type: NumPy's name of its type.
        classes: Names of the classes, by label; None if the outputs are predicted numbers.
        step: The epoch after which it was exported.
        is_averaged: Whether it has the averaged weights.
    """

    content: bytes
    torch_version: str
    example: list[Any]
    input_type: str
    is_scaled: bool
    output_shape: Sequence[int]
    output_type: str
    classes: Sequence[str] | None
    step: int
    is_averaged: bool = False


@dataclass(frozen=True)
class FiguresRecord:
    """What a run's figures show.

    Attributes:
        dataset: Its name.
        history: Each epoch with its metrics.
        inspection: The predictions of one evaluation pass after training.
    """

    title: str
    dataset: str
    history: list[tuple[int, dict[str, float]]]
    inspection: Inspection
