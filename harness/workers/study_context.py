"""What the trials and confirmations of a study share: its storage, its record, its screen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

from harness.base.goals import Goal
from harness.base.metric_names import Best
from harness.execution.callbacks import RecordRun
from harness.execution.events import Begun, Ending
from harness.execution.specification import RunSpecification
from harness.search.storage import StoredStudy
from harness.search.trial_queue import Search
from harness.tracking.messages import Recorder
from harness.tracking.schema import Kind
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.workers.progress import StudyProgress, StudyView


@dataclass
class StudyContext:
    """What the trials and confirmations of a study share.

    Attributes:
        run_id: the study's own run; empty before it has begun.
    """

    search: Search
    stored: StoredStudy
    recorder: Recorder
    execution: Execution
    progress: StudyProgress
    view: StudyView
    run_id: str = ""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What the study optimises."""
        return self.search.study.goals

    def record(
        self,
        experiment: Experiment,
        kind: Kind,
        name: str,
        user_tags: dict[str, str],
        objectives: dict[str, Best],
        describe: Callable[[RecordRun, Ending], str],
        if_never_begun: Begun | None = None,
    ) -> RecordRun:
        """A callback that records a training below the study's run; see `RecordRun`.

        Args:
            objectives: the metrics that judge it, and what is best for each.
        """
        tags = {"objectives": json.dumps(objectives)}
        if self.search.version > 1:
            tags["code_version"] = str(self.search.version)
        return RecordRun(
            self.recorder,
            RunSpecification(
                kind=kind,
                name=name,
                mlflow_experiment=self.search.study_name,
                parent=self.run_id,
                settings=dataclasses.asdict(self.execution),
                user_tags=user_tags,
                tags=tags,
            ),
            experiment,
            self.execution,
            describe=describe,
            waits=False,
            if_never_begun=if_never_begun,
        )
