"""Writes to an MLflow store, as plain data: each may be repeated, and leaves the same record.

What a server could not take is kept on disk (`harness.tracking.offline_queue`) and sent later,
perhaps a second time: a metric carries its own time, a run its own key, a model is logged once.
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from harness.tracking.logged_model import log_model
from harness.tracking.schema import ModelRecord
from harness.tracking.store import Store

STATUS: dict[str, str] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
"""MLflow's run status for each outcome."""

RUN_KEY = "harness.key"
"""Tag of a run on a server: the id that the recorder gave it before the server answered."""

LONGEST_RACE = 10
"""How often a write is tried that another process may have made at the same moment."""

PROBE_SECONDS = 1.0
"""How long a server may take to say that it is there."""


class ServerAway(Exception):
    """The tracking server does not answer, or not as MLflow would; it may be back later."""


class Delivery:
    """Carries out writes on an open store; every argument is plain data that JSON can hold."""

    def __init__(self, store: Store, stored_id: Callable[[str], str] = str) -> None:
        """`stored_id` gives the store's id of a run that was begun while the server was away."""
        self.store = store
        self.stored_id = stored_id

    def begin(
        self,
        run_id: str,
        *,
        experiment: str,
        about: str,
        name: str,
        tags: dict[str, str],
        start_time: int,
    ) -> str:
        """Create a run and return its id; `run_id` is its key where it may exist already."""
        experiment_id = self.store.experiment_id(experiment, about)
        if parent := tags.get("mlflow.parentRunId"):
            tags = tags | {"mlflow.parentRunId": self.stored_id(parent)}
        if run_id:
            tags = tags | {RUN_KEY: run_id}
            known = self.store.client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{run_id}'")
            if known:
                return str(known[0].info.run_id)
        run = self.store.client.create_run(
            experiment_id, start_time=start_time, run_name=name, tags=tags
        )
        return str(run.info.run_id)

    def describe(
        self, run_id: str, *, parameters: dict[str, str], inputs: list[dict[str, str]]
    ) -> None:
        """Record parameters and the sets of images that a run sees."""
        client, run_id = self.store.client, self.stored_id(run_id)
        client.log_batch(run_id, params=[Param(*item) for item in parameters.items()])
        for attempt in range(LONGEST_RACE if inputs else 0):
            try:
                client.log_inputs(run_id, [_dataset_input(**part) for part in inputs])
                break
            except MlflowException as error:
                # Two runs that are the first to see the same images: one of them finds the row.
                if attempt == LONGEST_RACE - 1 or "IntegrityError" not in str(error):
                    raise

    def log(
        self,
        run_id: str,
        *,
        metrics: dict[str, float],
        step: int,
        timestamp: int,
        tags: dict[str, str],
    ) -> None:
        """Record metrics of one step, and tags; the same again changes nothing."""
        self.store.client.log_batch(
            self.stored_id(run_id),
            metrics=[Metric(name, value, timestamp, step) for name, value in metrics.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def artifacts(self, run_id: str, *, files: dict[str, str]) -> None:
        """Keep files, in base64, by their path among a run's artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(content))
            self.store.client.log_artifacts(self.stored_id(run_id), folder)

    def model(
        self, run_id: str, *, file: str, torch_version: str, example: list[Any], step: int
    ) -> None:
        """Log the model of a run, an exported network in base64, unless it has been."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt2"
            path.write_bytes(base64.b64decode(file))
            record = ModelRecord(path, torch_version, example, step)
            log_model(self.store.client, self.stored_id(run_id), record)

    def reopen(self, run_id: str, *, owner: str, tags: dict[str, str]) -> None:
        """Go on with a run that had ended, in another process's hands."""
        client, run_id = self.store.client, self.stored_id(run_id)
        for name, value in {"harness.owner": owner, **tags}.items():
            client.set_tag(run_id, name, value)
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, "harness.outcome", "running")
        if "harness.reason" in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, "harness.reason")

    def end(self, run_id: str, *, status: str, end_time: int) -> None:
        """End a run with MLflow's status."""
        self.store.client.set_terminated(self.stored_id(run_id), status, end_time)

    def settle(self, run_id: str, *, outcomes: dict[str, str], end_time: int) -> None:
        """Give the children of a run the outcomes that are known elsewhere, by their ids.

        Others that a dead process left open were interrupted.
        """
        parent = self.stored_id(run_id)
        experiment = self.store.client.get_run(parent).info.experiment_id
        known = {self.stored_id(child): outcome for child, outcome in outcomes.items()}
        for run in self.store.search(f"tags.`mlflow.parentRunId` = '{parent}'", [experiment]):
            outcome = recorded = run.data.tags["harness.outcome"]
            if self.store.is_left_open(run):
                outcome = "interrupted"
            outcome = known.get(run.info.run_id, outcome)
            if outcome != recorded and outcome in STATUS:
                self.log(
                    run.info.run_id,
                    metrics={},
                    step=0,
                    timestamp=end_time,
                    tags={"harness.outcome": outcome},
                )
                self.end(run.info.run_id, status=STATUS[outcome], end_time=end_time)

    @property
    def answers(self) -> bool:
        """Whether a server is there: anything but silence and a gateway's regrets."""
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
    """Tell a server that is away from one that refuses.

    Raises:
        ServerAway: there was no answer, or one that says that the server is not at work.
    """
    try:
        yield
    except requests.RequestException as error:
        response = error.response
        if response is not None and response.status_code < 500:
            raise
        raise ServerAway(str(error)) from error
    except MlflowException as error:
        # What comes of no answer at all has the same code as an error within the server.
        if error.get_http_status_code() not in (429, *range(500, 600)):
            raise
        raise ServerAway(str(error)) from error


def _dataset_input(name: str, context: str, digest: str, source: str, profile: str) -> DatasetInput:
    dataset = Dataset(name=name, digest=digest, source_type="local", source=source, profile=profile)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])
