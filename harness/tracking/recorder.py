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

from harness.errors import BadRequest
from harness.ownership import Owner
from harness.privacy import mask
from harness.project import peak_memory_bytes
from harness.tracking import figures, provenance
from harness.tracking.model import log_model
from harness.tracking.record import (
    DataRecord,
    FiguresRecord,
    ModelRecord,
    Outcome,
    RunRecord,
    StoredRun,
)
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
                **{name: provenance.version(name) for name in ("mlflow", "optuna")},
                "git_commit": source.commit or "none",
                "git_dirty": str(bool(source.changes)).lower(),
                "command": provenance.command(record.command),
            }.items()
        }
        tags["mlflow.source.name"] = " ".join(tags["harness.command"].split()[:3])
        tags["mlflow.source.type"] = "LOCAL"
        if source.commit:
            tags["mlflow.source.git.commit"] = source.commit
        if record.parent:
            tags["mlflow.parentRunId"] = record.parent
        run = client.create_run(
            self.store.experiment_id(record.experiment, record.about),
            run_name=mask(record.name),
            tags=tags | {name: mask(value) for name, value in record.user_tags.items()},
        )
        run_id: str = run.info.run_id
        try:
            self._describe(run_id, record, source, tags["harness.command"])
        except BaseException:
            client.set_terminated(run_id, STATUS["failed"])
            raise
        return run_id

    def _describe(
        self, run_id: str, record: RunRecord, source: provenance.Source, command: str
    ) -> None:
        """Record what is known of a run before its first epoch."""
        client = self.store.client
        client.log_batch(
            run_id, params=[Param(name, str(value)) for name, value in record.parameters.items()]
        )
        if record.data:
            client.log_inputs(run_id, [_dataset_input(part) for part in record.data])
        description = {
            "experiment": record.experiment,
            "parameters": record.parameters,
            "fields": record.fields,
            "settings": record.settings,
            "data": [vars(part) for part in record.data],
            "command": command,
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

    def epoch(self, run_id: str, epoch: int, metrics: dict[str, float]) -> None:
        """Record one epoch's metrics in one batch."""
        now = int(time.time() * 1000)
        self.store.client.log_batch(
            run_id, metrics=[Metric(name, value, now, epoch) for name, value in metrics.items()]
        )

    def figures(self, run_id: str, record: FiguresRecord) -> None:
        """Draw a run's figures and keep them, with their data, among its artifacts."""
        started = time.perf_counter()
        drawn = figures.draw(
            record.title, record.dataset, record.class_names, record.history, record.inspection
        )
        files = {name: figures.png(figure) for name, figure in drawn.items()}
        tables = figures.tables(record.class_names, record.history, record.inspection)
        self.artifacts(run_id, files | {name: text.encode() for name, text in tables.items()})
        seconds = time.perf_counter() - started
        self.epoch(run_id, len(record.history), {"time/figures_seconds": seconds})

    def model(self, run_id: str, model: ModelRecord) -> float:
        """Log the network that the run ends with; return the seconds that took."""
        started = time.perf_counter()
        log_model(self.store.client, run_id, model)
        return time.perf_counter() - started

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

    def stored(self, run_id: str) -> StoredRun:
        """Read a run back; `last` is the latest that has not completed.

        Raises:
            BadRequest: there is none, or the harness did not write it.
        """
        client = self.store.client
        if run_id == "last":
            run_id = self._last_unfinished()
        try:
            run = client.get_run(run_id)
            with tempfile.TemporaryDirectory() as folder:
                path = client.download_artifacts(run_id, "experiment.json", folder)
                description = json.loads(Path(path).read_text())
            history = client.get_metric_history(run_id, "train/loss")
        except (MlflowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise BadRequest(f"There is no such run as {run_id!r} here: {reason}") from None
        tags = {
            name.removeprefix("harness."): value
            for name, value in run.data.tags.items()
            if name.startswith("harness.")
        }
        tags["parent"] = run.data.tags.get("mlflow.parentRunId", "")
        return StoredRun(
            run_id=run_id,
            kind=tags["kind"],
            outcome=tags["outcome"],
            experiment=description["experiment"],
            fields=description["fields"],
            settings=description["settings"],
            tags=tags,
            data=tuple(DataRecord(**part) for part in description["data"]),
            epochs=frozenset(metric.step for metric in history),
        )

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """Read one of a run's artifacts by its path among them; None where it has none such."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self.store.client.download_artifacts(run_id, name, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def _last_unfinished(self) -> str:
        experiments = [e.experiment_id for e in self.store.client.search_experiments()]
        runs = self.store.client.search_runs(
            experiments,
            "tags.harness.kind = 'run' and tags.harness.outcome != 'completed' "
            "and tags.harness.outcome != 'diverged'",
            order_by=["attributes.start_time DESC"],
        )
        for run in runs:
            tags = run.data.tags
            running = tags["harness.outcome"] == "running"
            if "mlflow.parentRunId" in tags or (
                running and not Owner.from_text(tags["harness.owner"]).is_dead
            ):
                continue
            return str(run.info.run_id)
        raise BadRequest("There is no run here that was interrupted and can go on.")

    def resume(self, run_id: str, owner: str) -> None:
        """Go on with a run that had ended, in another process's hands."""
        self.store.client.set_tag(run_id, "harness.owner", owner)
        self.store.client.update_run(run_id, status="RUNNING")
        self.store.client.set_tag(run_id, "harness.outcome", "running")
        with contextlib.suppress(MlflowException):  # a run whose machine lost power has no reason
            self.store.client.delete_tag(run_id, "harness.reason")

    def artifacts(self, run_id: str, files: dict[str, bytes]) -> None:
        """Keep files with a run, by their path among its artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.store.client.log_artifacts(run_id, folder)

    def abandon(self, run_ids: Iterable[str]) -> None:
        """End runs whose process died, as interrupted, where `settle` was not there before."""
        for run_id in run_ids:
            with contextlib.suppress(MlflowException):
                if self.store.client.get_run(run_id).data.tags["harness.outcome"] == "running":
                    self.finish(run_id, "interrupted", tags={"reason": "its process died"})

    def settle(self, parent: str, outcomes: dict[str, str]) -> None:
        """End the children of a run whose process died before it could tell how they ended.

        Args:
            outcomes: by run id, what those children ought to be (`running`, even) that are known
                elsewhere; others that are open were interrupted.
        """
        client = self.store.client
        experiment = client.get_run(parent).info.experiment_id
        children = f"tags.`mlflow.parentRunId` = '{parent}'"
        page = client.search_runs([experiment], children)
        while page:
            for run in page:
                recorded = run.data.tags["harness.outcome"]
                unknown = "interrupted" if recorded == "running" else recorded
                outcome: Any = outcomes.get(run.info.run_id, unknown)
                if outcome != recorded and outcome in STATUS:
                    self.finish(run.info.run_id, outcome)
            if not page.token:
                break
            page = client.search_runs([experiment], children, page_token=page.token)

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
