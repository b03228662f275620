"""What a run is called, where it belongs, and what is recorded of it before its first epoch."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base import project, provenance
from harness.base.command_line import command_text, repeatable
from harness.base.discovery import first_line
from harness.base.outside_code import FLAG
from harness.base.ownership import Owner
from harness.execution.events import Begun
from harness.tracking.schema import Kind, RunRecord
from harness.training.device import Execution
from harness.training.experiment import Experiment

CHECKPOINTS_KEPT = 2
"""The latest one, and the one before it in case the latest turns out to be damaged."""


@dataclass(frozen=True)
class RunSpecification:
    """What a run is called, where it belongs, and what it keeps.

    Attributes:
        mlflow_experiment: MLflow's experiment; by default that of the harness's experiment.
        parent: id of the group or study that the run belongs to.
        user_tags: tags with their whole names.
        tags: tags of the harness, without their prefix.
        settings: how the run was asked for, in JSON's types; a resume reads them.
        start_from: id of the run whose weights the training starts from.
        figures: whether figures are drawn after training.
        keep_best: whether the logged model is that of the best epoch on the validation examples.
        log_average: whether the logged model is that of the averaged weights.
        checkpoint_every: epochs from one checkpoint to the next; the last epoch always has one.
        keep_checkpoints: how many of the latest checkpoints stay on disk.
        command: the command line that repeats the run, as `sys.argv` gives it.
        data_root: the folder of the data sets, if it was named: a resume must name it again, since
            a record holds no paths of this machine.
    """

    kind: Kind = "run"
    name: str | None = None
    mlflow_experiment: str | None = None
    parent: str | None = None
    user_tags: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    system_metrics: bool = False
    figures: bool = True
    keep_best: bool = False
    log_average: bool = False
    checkpoint_every: int = 1
    keep_checkpoints: int = CHECKPOINTS_KEPT
    command: tuple[str, ...] = field(default_factory=lambda: repeatable(sys.argv))
    data_root: Path | None = None

    @property
    def is_resumable(self) -> bool:
        """Whether the run can go on by itself; what belongs to a group or study is repeated."""
        return self.kind == "run" and self.parent is None

    def resume_command(self, run_id: str, experiment: Experiment) -> str:
        """The command line that goes on with the run, to paste in the current folder."""
        words = ["python", "-m", "harness.run", "--resume", run_id]
        if experiment.outside_code():
            words.append(FLAG)
        if self.data_root:
            words += ["--data-root", os.path.abspath(self.data_root)]
        return command_text(words, Path.cwd())

    def record(self, experiment: Experiment, execution: Execution, begun: Begun) -> RunRecord:
        """The run as a store begins it."""
        return RunRecord(
            mlflow_experiment=self.mlflow_experiment or experiment.name,
            experiment=experiment.name,
            name=self.name or experiment.label(),
            kind=self.kind,
            parameters={
                **({"dataset": begun.data[0].name} if begun.data else {}),
                **experiment.parameters(),
                **execution.parameters(),
                **({"start_from": self.start_from[:8]} if self.start_from else {}),
            },
            fields=experiment.fields(),
            tags={
                **begun.machine,
                "owner": str(Owner.current()),
                "experiment_sha256": experiment.source_digest(),
                "code": json.dumps(experiment.sources()),
                "metrics": json.dumps(experiment.directions()),
                **self.tags,
            },
            data=begun.data,
            settings=self.settings | {"start_from": self.start_from},
            command=self.command,
            about=self._about(experiment),
            parent=self.parent,
            user_tags=self.user_tags,
            system_metrics=self.system_metrics,
            modules=provenance.imported_files(),
            code=experiment.outside_code(),
        )

    def _about(self, experiment: Experiment) -> str:
        """The experiment or study in Markdown: what it is, and how to run it. Empty for a child."""
        if self.parent:
            return ""
        folder, command, file = "experiments", "run", experiment.name
        if self.kind == "study":
            folder, command, file = "studies", "study", self.user_tags["harness.study"]
        path = project.root() / folder / f"{file}.py"
        if not path.is_file() or experiment.outside_code():  # it is of a notebook
            return ""
        name = shlex.quote(self.mlflow_experiment or file)
        return "\n".join(
            [
                first_line(path),
                "",
                f"Declared in `{folder}/{file}.py`. To run it, and to write a report of it:",
                "",
                f"    python -m harness.{command} {file}",
                f"    python -m harness.report {name}",
            ]
        )
