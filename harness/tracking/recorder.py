"""The recorder: writes runs to MLflow, synchronously, through run ids and no global state."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from mlflow.exceptions import MlflowException

from harness.base import provenance
from harness.base.errors import BadRequest
from harness.base.privacy import mask
from harness.base.project import peak_memory_bytes
from harness.figures import run_figures
from harness.tracking.offline_queue import Spool
from harness.tracking.schema import (
    DataRecord,
    FiguresRecord,
    ModelRecord,
    Outcome,
    RunRecord,
)
from harness.tracking.store import Store
from harness.tracking.writer import STATUS, Delivery, ServerAway, answered


class MlflowRecorder:
    """Records runs in the store; see `harness.tracking.schema.Recorder`.

    What a tracking server that is away cannot take waits on disk; see
    `harness.tracking.offline_queue`.
    """

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

    @functools.cached_property
    def _delivery(self) -> Delivery:
        return Delivery(self.store)

    @functools.cached_property
    def _spool(self) -> Spool | None:
        return Spool(self.store) if self.store.is_remote else None

    def _write(self, method: str, run_id: str, **arguments: Any) -> Any:
        if self._spool:
            return self._spool.write(method, run_id, arguments)
        return getattr(self._delivery, method)(run_id, **arguments)

    def prepare(self) -> None:
        """Open the store, clear up after dead processes, and read where the source stands."""
        self.clear_up()
        self._source = provenance.source()

    def clear_up(self) -> tuple[int, int]:
        """Send what dead processes could not, then end the runs that they left open.

        Returns:
            The writes sent, and those that a server still has not taken.
        """
        sent, waiting = self._spool.send_others() if self._spool else (0, 0)
        for run in list(self.store.search("tags.harness.outcome = 'running'")):
            if self.store.is_left_open(run):
                reason = "its process died"
                self.finish(run.info.run_id, "interrupted", tags={"reason": reason})
        return sent, waiting

    @property
    def waiting(self) -> int:
        """How many of this recorder's writes the server has not taken yet."""
        return self._spool.waiting if self._store and self._spool else 0

    def send_waiting(self, at_once: bool = False) -> int:
        """Send what waits, if the server is back; return how many writes still wait."""
        if self._store and self._spool:
            self._spool.send(at_once)
        return self.waiting

    def start(self, record: RunRecord) -> str:
        """Begin a run and return its id."""
        source = self._source or provenance.source()
        tags = {
            f"harness.{name}": value
            for name, value in {
                "experiment": record.trained or record.experiment,
                "kind": record.kind,
                "outcome": "running",
                # Here and not in a file alone: what is killed a moment later can go on too.
                "fields": json.dumps(record.fields),
                "parameters": json.dumps(record.parameters),
                "settings": json.dumps(record.settings),
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
        run_id: str = self._write(
            "begin",
            "",
            experiment=record.experiment,
            about=record.about,
            name=mask(record.name),
            tags=tags | {name: mask(value) for name, value in record.user_tags.items()},
            start_time=_now(),
        )
        try:
            self._describe(run_id, record, source, tags["harness.command"])
        except BaseException:
            self._write("end", run_id, status=STATUS["failed"], end_time=_now())
            raise
        return run_id

    def _describe(
        self, run_id: str, record: RunRecord, source: provenance.Source, command: str
    ) -> None:
        """Record what is known of a run before its first epoch."""
        self._write(
            "describe",
            run_id,
            parameters={name: str(value) for name, value in record.parameters.items()},
            inputs=[_input(part) for part in record.data],
        )
        description = {
            "experiment": record.trained or record.experiment,
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
        self._log(run_id, epoch, metrics, {})

    def figures(self, run_id: str, record: FiguresRecord) -> None:
        """Draw a run's figures and keep them, with their data, among its artifacts."""
        started = time.perf_counter()
        drawn = run_figures.draw(
            record.title, record.dataset, record.class_names, record.history, record.inspection
        )
        files = {name: run_figures.png(figure) for name, figure in drawn.items()}
        tables = run_figures.tables(record.class_names, record.history, record.inspection)
        self.artifacts(run_id, files | {name: text.encode() for name, text in tables.items()})
        seconds = time.perf_counter() - started
        self.epoch(run_id, len(record.history), {"time/figures_seconds": seconds})

    def model(self, run_id: str, model: ModelRecord) -> float:
        """Log the network that the run ends with; return the seconds that took."""
        started = time.perf_counter()
        self._write(
            "model",
            run_id,
            file=base64.b64encode(model.path.read_bytes()).decode(),
            torch_version=model.torch_version,
            example=model.example,
            step=model.step,
        )
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
        all_metrics = {"memory/recorder_peak_bytes": peak_memory_bytes(), **(metrics or {})}
        all_tags = {f"harness.{name}": mask(value) for name, value in (tags or {}).items()}
        all_tags["harness.outcome"] = outcome
        if description:
            all_tags["mlflow.note.content"] = description
        self._log(run_id, epoch, all_metrics, all_tags)
        self._write("end", run_id, status=STATUS[outcome], end_time=_now())

    def _log(self, run_id: str, step: int, metrics: dict[str, float], tags: dict[str, str]) -> None:
        self._write("log", run_id, metrics=metrics, step=step, timestamp=_now(), tags=tags)

    def _stored_id(self, run_id: str) -> str:
        return self._spool.stored_id(run_id) if self._spool else run_id

    def resume(
        self,
        run_id: str,
        owner: str,
        allowed: Sequence[str] = (),
        record: RunRecord | None = None,
    ) -> None:
        """Go on with a run that had ended, in another process's hands; describe it by `record`."""
        tags = {"harness.allowed_changes": " ".join(allowed)} if allowed else {}
        self._write("reopen", run_id, owner=owner, tags=tags)
        if record:
            run = self.store.client.get_run(run_id)
            source = self._source or provenance.source()
            self._describe(run_id, record, source, run.data.tags["harness.command"])

    def artifacts(self, run_id: str, files: dict[str, bytes]) -> None:
        """Keep files with a run, by their path among its artifacts."""
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise BadRequest(f"artifact: {name!r} would lie outside of the run.")
        encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
        self._write("artifacts", run_id, files=encoded)

    def abandon(self, run_ids: Iterable[str]) -> None:
        """End runs whose process died, as interrupted, where `settle` was not there before."""
        for run_id in run_ids:
            try:
                with answered():
                    run = self.store.client.get_run(self._stored_id(run_id))
                outcome = run.data.tags["harness.outcome"]
            except ServerAway:
                outcome = "running"
            except MlflowException:  # it was deleted meanwhile
                continue
            if outcome == "running":
                # What cannot be written now, as on a full disk, the next command will write.
                with contextlib.suppress(MlflowException):
                    self.finish(run_id, "interrupted", tags={"reason": "its process died"})

    def settle(self, parent: str, outcomes: dict[str, str]) -> None:
        """End the children of a run whose process died before it could tell how they ended.

        Args:
            outcomes: by run id, what those children ought to be (`running`, even) that are known
                elsewhere; others that a dead process left open were interrupted.
        """
        self._write("settle", parent, outcomes=outcomes, end_time=_now())

    def _monitor(self, run_id: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitors[run_id] = SystemMetricsMonitor(
            run_id, sampling_interval=1, tracking_uri=self.store.uri
        )
        self._monitors[run_id].start()


def _input(part: DataRecord) -> dict[str, str]:
    return {
        "name": part.name,
        "context": part.context,
        # MLflow keeps 36 characters of a digest; the tag has the whole one.
        "digest": part.digest[:36],
        "source": json.dumps({"dataset": part.name, "sha256": part.digest}),
        "profile": json.dumps({"num_images": part.size}),
    }


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
