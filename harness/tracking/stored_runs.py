"""Runs read back one at a time, through MLflow's client; to be replaced by the reader."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from harness.base.errors import BadRequest
from harness.base.ownership import is_owner_dead
from harness.tracking.schema import DataRecord, StoredRun
from harness.tracking.store import Store
from harness.tracking.store_address import stored_id


def stored(run_id: str) -> StoredRun:
    """Read a run back; `last` is the latest that has not completed.

    Raises:
        BadRequest: There is none, or the harness did not write it.
    """
    store = Store()
    run_id = _last_unfinished(store) if run_id == "last" else stored_id(run_id)
    try:
        run = store.client.get_run(run_id)
        files = [entry.path for entry in store.client.list_artifacts(run_id)]
        history = _history(store, run_id, list(run.data.metrics))
    except (MlflowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadRequest(f"There is no such run as {run_id!r} here: {reason}") from None
    tags = {
        name.removeprefix("harness."): value
        for name, value in run.data.tags.items()
        if name.startswith("harness.")
    }
    tags["parent"] = run.data.tags.get("mlflow.parentRunId", "")
    if "fields" not in tags:
        raise BadRequest(f"{run_id} is not one of the harness's runs.")
    return StoredRun(
        run_id=run_id,
        kind=tags["kind"],
        outcome=tags["outcome"],
        experiment=tags["experiment"],
        fields=json.loads(tags.pop("fields")),
        settings=json.loads(tags.pop("settings")),
        tags=tags,
        data=_data(run),
        history=history,
        is_described="experiment.json" in files,
    )


def artifact(run_id: str, name: str) -> bytes | None:
    """Read one of a run's artifacts by its path among them; None if it is missing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(Store().client.download_artifacts(run_id, name, folder)).read_bytes()
        except (MlflowException, OSError):
            return None


def _history(store: Store, run_id: str, names: list[str]) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for name in names:
        if name.startswith(("train/", "test/", "validation/")):
            for metric in store.client.get_metric_history(run_id, name):
                value = metric.value
                if abs(value) == sys.float_info.max:  # MLflow's word for infinity
                    value = math.copysign(math.inf, value)
                found.setdefault(metric.step, {})[name] = value
    return found


def _last_unfinished(store: Store) -> str:
    unfinished = (
        "tags.harness.kind = 'run' and tags.harness.outcome != 'completed' "
        "and tags.harness.outcome != 'diverged'"
    )
    for run in store.search(unfinished):
        tags = run.data.tags
        running = tags["harness.outcome"] == "running"
        if "mlflow.parentRunId" in tags or (running and not is_owner_dead(tags["harness.owner"])):
            continue
        return str(run.info.run_id)
    raise BadRequest("There is no run here that was interrupted and can go on.")


def _data(run: Run) -> tuple[DataRecord, ...]:
    """The sets of images that a run saw, with their whole digests."""
    found = []
    for entry in run.inputs.dataset_inputs if run.inputs else []:
        (context,) = (tag.value for tag in entry.tags if tag.key == "mlflow.data.context")
        digest = run.data.tags[f"harness.data.{context}_sha256"]
        size = json.loads(entry.dataset.profile or "{}")["num_images"]
        found.append(DataRecord(entry.dataset.name, context, digest, size))
    return tuple(found)
