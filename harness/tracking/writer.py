"""Carries out writes on an MLflow store. Each may be repeated, and leaves the same record.

Writes that a server could not take wait on disk (`harness.tracking.offline_queue`) and are sent
later, perhaps twice. So a metric carries its own time, a run its own key, and a model is logged
only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_never

import requests
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from harness.tracking.logged_model import log_model
from harness.tracking.schema import DataRecord, ModelRecord
from harness.tracking.store import Store
from harness.tracking.writes import (
    ContinueRun,
    CreateRun,
    DescribeRun,
    LogBatch,
    LogFiles,
    LogNetwork,
    ReconcileRuns,
    TerminateRun,
    Write,
)

STATUS: dict[str, str] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "collapsed": "FAILED",
    "timed out": "FAILED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
"""MLflow's run status for each outcome."""

RUN_KEY = "harness.key"
"""Tag of a run on a server: the id that the recorder gave it before the server answered."""

NOTE = "mlflow.note.content"
"""Tag of a run that MLflow shows as its description."""

NOTE_DIGEST = "harness.note_sha256"
"""Tag of a run: the digest of the description that the harness wrote."""

LONGEST_RACE = 10
"""How often to try a write that another process may make at the same moment."""

PROBE_SECONDS = 1.0
"""How long a server may take to answer whether it is there."""


class ServerAway(Exception):
    """The tracking server does not answer, or not as MLflow would; it may be back later."""


class Writer:
    """Carries out writes on an open store."""

    def __init__(self, store: Store, stored_id: Callable[[str], str] = str) -> None:
        """`stored_id` returns the store's id of a run that was created while it was away."""
        self.store = store
        self._stored_id = stored_id

    def write(self, write: Write) -> str | None:
        """Carry out a write; the answer to `CreateRun` is the run's id."""
        match write:
            case CreateRun():
                return self._create(write)
            case DescribeRun():
                self._describe(write)
            case LogBatch():
                self._log(write)
            case LogFiles():
                self._log_files(write)
            case LogNetwork():
                fields = vars(write).copy()
                run_id = self._stored_id(fields.pop("run_id"))
                log_model(self.store.client, run_id, ModelRecord(**fields))
            case ContinueRun():
                self._continue(write)
            case TerminateRun():
                run_id = self._stored_id(write.run_id)
                self.store.client.set_terminated(run_id, write.status, write.end_time)
            case ReconcileRuns():
                self._reconcile(write)
            case _:
                assert_never(write)
        return None

    def _create(self, write: CreateRun) -> str:
        experiment_id = self.store.experiment_id(write.experiment, write.about)
        tags = dict(write.tags)
        if parent := tags.get("mlflow.parentRunId"):
            tags["mlflow.parentRunId"] = self._stored_id(parent)
        if write.key:
            tags[RUN_KEY] = write.key
            known = self.store.client.search_runs(
                [experiment_id], f"tags.{RUN_KEY} = '{write.key}'"
            )
            if known:
                return str(known[0].info.run_id)
        run = self.store.client.create_run(
            experiment_id, start_time=write.start_time, run_name=write.name, tags=tags
        )
        return str(run.info.run_id)

    def _describe(self, write: DescribeRun) -> None:
        client, run_id = self.store.client, self._stored_id(write.run_id)
        client.log_batch(run_id, params=[Param(*item) for item in write.parameters.items()])
        inputs = [_dataset_input(DataRecord(**part)) for part in write.inputs]
        for attempt in range(LONGEST_RACE if inputs else 0):
            try:
                client.log_inputs(run_id, inputs)
                break
            except MlflowException as error:
                # Two runs see the same data first: only one of them can insert the row.
                if attempt == LONGEST_RACE - 1 or "IntegrityError" not in str(error):
                    raise

    def _log(self, write: LogBatch) -> None:
        run_id, tags = self._stored_id(write.run_id), dict(write.tags)
        if NOTE in tags:
            known = self.store.client.get_run(run_id).data.tags
            own = known.get(NOTE_DIGEST)
            if known.get(NOTE) and _digest(known[NOTE]) != own:
                del tags[NOTE]  # a person has written one
            else:
                tags[NOTE_DIGEST] = _digest(tags[NOTE])
        self.store.client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, write.timestamp, write.step)
                for name, value in write.metrics.items()
            ],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def _log_files(self, write: LogFiles) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in write.files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.store.client.log_artifacts(self._stored_id(write.run_id), folder)

    def _continue(self, write: ContinueRun) -> None:
        client, run_id = self.store.client, self._stored_id(write.run_id)
        beat = str(time.time())  # the run's start may be long ago
        tags = {"harness.heartbeat": beat, "harness.owner": write.owner, **write.tags}
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, "harness.outcome", "running")
        if "harness.reason" in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, "harness.reason")

    def _reconcile(self, write: ReconcileRuns) -> None:
        known = {self._stored_id(child): outcome for child, outcome in write.outcomes.items()}
        for child in self.store.children(self._stored_id(write.parent)):
            left_open = self.store.is_left_open(child)
            outcome = known.get(child.run_id) or (
                "interrupted" if left_open and child.outcome == "running" else child.outcome
            )
            if outcome in STATUS and (left_open or outcome != child.outcome):
                tags = {"harness.outcome": outcome}
                self._log(LogBatch(child.run_id, {}, 0, write.end_time, tags))
                self.store.client.set_terminated(child.run_id, STATUS[outcome], write.end_time)

    @property
    def answers(self) -> bool:
        """Whether a server is there: it answers, and not with a gateway's error."""
        address = f"{self.store.uri.rstrip('/')}/health"
        try:
            with urllib.request.urlopen(address, timeout=PROBE_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except (OSError, ValueError):
            return False


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn the errors of a server that is away into `ServerAway`; those of a refusal stay.

    Raises:
        ServerAway: The server did not answer, or answered that it is not working.
    """
    try:
        yield
    except requests.RequestException as error:
        response = error.response
        if response is not None and response.status_code < 500:
            raise
        raise ServerAway(str(error)) from error
    except MlflowException as error:
        # MLflow gives silence the same code as an error inside the server.
        if error.get_http_status_code() not in (429, *range(500, 600)):
            raise
        raise ServerAway(str(error)) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _dataset_input(part: DataRecord) -> DatasetInput:
    dataset = Dataset(
        name=part.name,
        # MLflow keeps 36 characters of a digest; the run's tag has all of them.
        digest=part.digest[:36],
        source_type="local",
        source=json.dumps({"dataset": part.name, "sha256": part.digest}),
        profile=json.dumps({"num_examples": part.size}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", part.context)])
