"""Writes carried out on a store: repeated ones leave the same record."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run
from records import dead_owner, record, use_store

from harness.base.ownership import Owner
from harness.tracking.messages import StartRun
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.store import Store
from harness.tracking.writer import Writer
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


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    use_store(tmp_path / "store", monkeypatch)
    return Writer(Store())


def created(writer: Writer, key: str = "", **tags: str) -> str:
    known = {"harness.outcome": "running", "harness.experiment": "baseline", **tags}
    run_id = writer.write(CreateRun(key, "baseline", "", "name", known, 1_000))
    assert run_id
    return run_id


def run_of(writer: Writer, run_id: str) -> Run:
    return writer.store.client.get_run(run_id)


def test_every_write_may_be_repeated(writer: Writer) -> None:
    run_id = created(writer, key="0" * 32)
    digest = {"name": "digits", "context": "test", "digest": "a" * 64, "size": 360}
    again: list[Write] = [
        DescribeRun(run_id, {"lr": "0.1"}, [digest]),
        LogBatch(run_id, {"test/loss": 0.5}, 1, 2_000, {"harness.x": "y"}),
        LogFiles(run_id, {"figures/a.txt": b"text"}),
        LogNetwork(
            run_id,
            b"network",
            "2.13.0",
            [[[[0.0] * 28] * 28]] * 2,
            "float32",
            True,
            [10],
            "float32",
            list("0123456789"),
            1,
        ),
        TerminateRun(run_id, "FINISHED", 3_000),
    ]
    for _ in range(2):
        for write in again:
            assert writer.write(write) is None
        assert created(writer, key="0" * 32) == run_id
    run, client = run_of(writer, run_id), writer.store.client
    assert [m.step for m in client.get_metric_history(run_id, "test/loss")] == [1]
    assert run.data.params == {"lr": "0.1"}
    assert run.inputs
    assert run.outputs
    assert len(run.inputs.dataset_inputs) == 1
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000, 3_000)
    assert Path(client.download_artifacts(run_id, "figures/a.txt")).read_bytes() == b"text"
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.name, str(model.status), model.source_run_id) == ("model", "READY", run_id)
    (kept,) = Path(model.artifact_location).rglob("model.pt2")
    assert kept.read_bytes() == b"network"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]


def test_runs_without_a_key_are_different(writer: Writer) -> None:
    assert created(writer) != created(writer)


def test_a_run_that_goes_on_has_another_owner(writer: Writer) -> None:
    run_id = created(writer, **{"harness.owner": "before", "harness.reason": "Ctrl-C"})
    tags = {"harness.outcome": "interrupted"}
    writer.write(LogBatch(run_id, {}, 0, 1, tags))
    writer.write(TerminateRun(run_id, "KILLED", 2_000))
    writer.write(ContinueRun(run_id, "after", {"harness.allowed_changes": "data"}))
    run = run_of(writer, run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["harness.outcome"] == "running"
    assert run.data.tags["harness.owner"] == "after"
    assert run.data.tags["harness.allowed_changes"] == "data"
    assert "harness.reason" not in run.data.tags


def test_children_get_the_outcomes_that_are_known(writer: Writer) -> None:
    parent = created(writer)
    here, dead = str(Owner.current()), dead_owner()
    owners = {
        **{"dead": dead, "alive": here, "completed": dead, "still running": dead},
        **{"known already": here},
    }
    children = {
        name: created(writer, **{"mlflow.parentRunId": parent, "harness.owner": owner})
        for name, owner in owners.items()
    }
    other = created(writer, **{"harness.owner": dead})
    outcomes = {
        children["completed"]: "completed",
        children["still running"]: "running",
        children["known already"]: "diverged",
    }
    writer.write(ReconcileRuns(parent, outcomes, 5_000))
    found = {name: run_of(writer, run_id) for name, run_id in children.items()}
    assert {
        name: (run.data.tags["harness.outcome"], run.info.status) for name, run in found.items()
    } == {
        "dead": ("interrupted", "KILLED"),
        "alive": ("running", "RUNNING"),
        "completed": ("completed", "FINISHED"),
        "still running": ("running", "RUNNING"),
        "known already": ("diverged", "FAILED"),
    }
    assert run_of(writer, other).info.status == "RUNNING"


def test_a_model_has_the_results_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(tmp_path, monkeypatch)
    recorder = MlflowRecorder()
    run_id = recorder.send(StartRun(record()))
    writer = Writer(recorder.store)
    writer.write(LogBatch(run_id, {"test/accuracy": 0.75, "time/x": 1.0}, 2, 2_000, {}))
    writer.write(
        LogNetwork(
            run_id,
            b"network",
            "2.13.0",
            [[[[0.0] * 28] * 28]] * 2,
            "float32",
            True,
            [10],
            "float32",
            list("0123456789"),
            2,
        )
    )
    client = writer.store.client
    (model,) = client.search_logged_models([run_of(writer, run_id).info.experiment_id])
    assert model.metrics
    assert [(m.key, m.value, m.dataset_name) for m in model.metrics] == [
        ("test/accuracy", 0.75, "digits")
    ]
    assert [m.value for m in client.get_metric_history(run_id, "test/accuracy")] == [0.75]
