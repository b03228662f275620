"""A store with real runs, and with all that is unusual: no number, deleted, not the harness's."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

FOREIGN = {"x": "007", "version": "1.10", "big": str(2**70), "lr": "0.1", "on": "True", "n": "nan"}
"""Parameters of a run that the harness did not record."""


def make_unusual_store(recorded: Path, path: Path) -> None:
    """Copy a store with a group of softmax regression, and add unusual runs to the copy."""
    path.parent.mkdir()
    with closing(sqlite3.connect(recorded)) as real, closing(sqlite3.connect(path)) as copy:
        real.backup(copy)
    client = MlflowClient(f"sqlite:///{path}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "softmax_regression")
    for values in ([2.0, math.nan, math.inf], [-math.inf, 0.5], [math.nan]):
        run = client.create_run(
            experiment.experiment_id,
            tags={
                **{"harness.kind": "run", "harness.outcome": "diverged", "colour": "blue"},
                "harness.metrics": '{"x": null, "loss": "min"}',
            },
        )
        metrics = [
            Metric(name, value, 1000 + step, step)
            for name in ("train/loss", "test/accuracy", "one more/loss", "x")
            for step, value in enumerate(values, 1)
        ]
        client.log_batch(run.info.run_id, metrics=metrics)
        # A second time, as a run that was resumed after a loss of power may do it.
        client.log_batch(run.info.run_id, metrics=[Metric("x", 7.0, 2000, 1)])
        client.log_batch(run.info.run_id, metrics=[Metric("x", 8.0, 3000, 1)])
    deleted = client.create_run(experiment.experiment_id)
    client.delete_run(deleted.info.run_id)
    elsewhere = client.create_experiment("deleted")
    client.create_run(elsewhere)
    client.delete_experiment(elsewhere)
    foreign = client.create_run("0", run_name="somebody else's")
    client.log_batch(foreign.info.run_id, params=[Param(*item) for item in FOREIGN.items()])
