"""The recorder: writes runs to MLflow, synchronously, through run ids and no global state."""

from __future__ import annotations

import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from harness.project import peak_memory_bytes
from harness.tracking import provenance
from harness.tracking.model import log_model
from harness.tracking.record import DataRecord, ModelRecord, Outcome, RunRecord
from harness.tracking.store import Store

STATUS: dict[str, str] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
"""MLflow's run status for each outcome."""


class MlflowRecorder:
    """Records runs in the store; see `harness.tracking.record.Recorder`."""

    def __init__(self) -> None:
        self._store: Store | None = None
        self._source: provenance.Source | None = None
        self._monitors: dict[str, Any] = {}

    @property
    def store(self) -> Store:
        """The store, opened at the first use."""
        if self._store is None:
            self._store = Store()
        return self._store

    def prepare(self) -> None:
        """Open the store and read where the source stands."""
        _ = self.store
        self._source = provenance.source()

    def start(self, record: RunRecord) -> str:
        """Begin a run and return its id."""
        source = self._source or provenance.source()
        client = self.store.client
        tags = {
            f"harness.{name}": value
            for name, value in {
                "experiment": record.experiment,
                "kind": record.kind,
                "outcome": "running",
                **record.tags,
                **{f"data.{part.context}_sha256": part.digest for part in record.data},
                "python": platform.python_version(),
                **{name: provenance.version(name) for name in ("torch", "mlflow", "optuna")},
                "git_commit": source.commit or "none",
                "git_dirty": str(bool(source.changes)).lower(),
                "command": provenance.command(record.command),
            }.items()
        }
        tags["mlflow.source.name"] = tags["harness.command"]
        tags["mlflow.source.type"] = "LOCAL"
        if source.commit:
            tags["mlflow.source.git.commit"] = source.commit
        if record.parent:
            tags["mlflow.parentRunId"] = record.parent
        run = client.create_run(
            self.store.experiment_id(record.experiment),
            run_name=record.name,
            tags=tags | record.user_tags,
        )
        run_id: str = run.info.run_id
        client.log_batch(
            run_id, params=[Param(name, str(value)) for name, value in record.parameters.items()]
        )
        if record.data:
            client.log_inputs(run_id, [_dataset_input(part) for part in record.data])
        description = {
            "experiment": record.experiment,
            "parameters": record.parameters,
            "settings": record.settings,
            "data": [vars(part) for part in record.data],
            "command": tags["harness.command"],
            "git_commit": source.commit,
        }
        files = {"experiment.json": json.dumps(description, indent=2) + "\n"}
        if not record.parent:  # children share their parent's
            files["environment.txt"] = provenance.environment()
            if source.changes:
                files["changes.diff"] = source.changes
        self.artifacts(run_id, {name: text.encode() for name, text in files.items()})
        if record.system_metrics:
            self._monitor(run_id)
        return run_id

    def epoch(self, run_id: str, epoch: int, metrics: dict[str, float]) -> None:
        """Record one epoch's metrics in one batch."""
        now = int(time.time() * 1000)
        self.store.client.log_batch(
            run_id, metrics=[Metric(name, value, now, epoch) for name, value in metrics.items()]
        )

    def model(self, run_id: str, model: ModelRecord) -> None:
        """Log the network that the run ends with."""
        log_model(self.store.client, run_id, model)

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
        if monitor := self._monitors.pop(run_id, None):
            monitor.finish()
        now = int(time.time() * 1000)
        all_metrics = {"memory/recorder_peak_bytes": peak_memory_bytes(), **(metrics or {})}
        all_tags = {f"harness.{name}": value for name, value in (tags or {}).items()}
        all_tags["harness.outcome"] = outcome
        if description:
            all_tags["mlflow.note.content"] = description
        self.store.client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, epoch) for name, value in all_metrics.items()],
            tags=[RunTag(name, value) for name, value in all_tags.items()],
        )
        self.store.client.set_terminated(run_id, STATUS[outcome])

    def resume(self, run_id: str) -> None:
        """Go on with a run that had ended."""
        self.store.client.update_run(run_id, status="RUNNING")
        self.store.client.set_tag(run_id, "harness.outcome", "running")

    def artifacts(self, run_id: str, files: dict[str, bytes]) -> None:
        """Keep files with a run, by their path among its artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.store.client.log_artifacts(run_id, folder)

    def abandon(self, run_ids: Iterable[str]) -> None:
        """End runs whose process died, as interrupted."""
        for run_id in run_ids:
            with contextlib.suppress(MlflowException):
                self.finish(run_id, "interrupted", tags={"reason": "its process died"})

    def _monitor(self, run_id: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitors[run_id] = SystemMetricsMonitor(
            run_id, sampling_interval=1, tracking_uri=self.store.uri
        )
        self._monitors[run_id].start()


def _dataset_input(part: DataRecord) -> DatasetInput:
    # MLflow keeps 36 characters of a digest; the tag has the whole one.
    dataset = Dataset(
        name=part.name,
        digest=part.digest[:36],
        source_type="local",
        source=json.dumps({"dataset": part.name, "sha256": part.digest}),
        profile=json.dumps({"num_images": part.size}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", part.context)])
