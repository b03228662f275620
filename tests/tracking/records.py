"""What the tests of the recorder share: a small record, and stores in a folder of the test's."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.base.ownership import Owner
from harness.tracking.schema import DataRecord, RunRecord
from harness.tracking.store import Store

DATA = (
    DataRecord("digits", "training", "a" * 64, 1437),
    DataRecord("digits", "test", "b" * 64, 360),
)


def record(**changes: Any) -> RunRecord:
    """A run of the baseline, owned by this process."""
    parameters = {"lr": 0.1, "seed": 0, "dataset": "digits"}
    known = RunRecord(
        mlflow_experiment="baseline",
        experiment="baseline",
        name="baseline lr=0.1",
        kind="run",
        parameters=parameters,
        fields=parameters,
        tags={"owner": str(Owner.current())},
        data=DATA,
    )
    return dataclasses.replace(known, **changes)


def dead_owner() -> str:
    """A process of this machine that is no more."""
    return json.dumps(json.loads(str(Owner.current())) | {"started": "1"})


@functools.cache
def _empty() -> bytes:
    """An empty store, made once: MLflow needs seconds for it."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        Store()
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(f"{path}.copy")) as target,
        ):
            source.backup(target)
        return Path(f"{path}.copy").read_bytes()


def use_store(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Let this process and its children record into a new store in a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "mlflow.db"
    path.write_bytes(_empty())
    artifacts = folder / "artifacts"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (f"{artifacts}/0",))
    shutil.rmtree(artifacts, ignore_errors=True)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path
