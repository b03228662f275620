"""What a run records, read back through MLflow's own client: everything, once, and no secret.

At the end: what each message does, in this process.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from conftest import GIT, ROOT, SECRET_FILE, SECRETS, USER, Recorded
from mlflow import MlflowClient
from mlflow.entities import Run
from records import dead_owner, record, use_store

from experiments.baseline import Baseline
from harness.base import provenance
from harness.base.errors import RecordLost, RunFailed
from harness.base.ownership import Owner
from harness.tracking.messages import (
    EndRun,
    LogEpoch,
    Message,
    Recovered,
    RecoverRuns,
    ReopenRun,
    SendWaiting,
    StartRun,
)
from harness.tracking.recorder import MlflowRecorder
from harness.training.builtin_datasets import data_root, open_dataset


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of the processes that share the cores would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


needs_git = pytest.mark.skipif(not GIT, reason="there is no git")


@pytest.fixture
def client(finished: Recorded) -> Iterator[MlflowClient]:
    checkout, _ = finished
    with checkout.opened() as client:
        yield client


@pytest.fixture
def run(finished: Recorded, client: MlflowClient) -> Run:
    _, ended = finished
    return client.get_run(ended.run_id)


def text_of(client: MlflowClient, run: Run, name: str) -> bytes:
    return Path(client.download_artifacts(run.info.run_id, name)).read_bytes()


# ---- what is recorded ----


def test_every_field_and_what_changes_the_numbers_is_a_parameter(run: Run) -> None:
    experiment = Baseline(dataset="digits", num_epochs=2)
    expected = experiment.parameters() | {"matmul_precision": "highest", "capture_graph": False}
    assert run.data.params == {name: str(value) for name, value in expected.items()}


def test_every_metric_of_an_epoch_is_recorded_once(run: Run, client: MlflowClient) -> None:
    of_epochs = {f"{part}/{kind}" for part in ("train", "test") for kind in ("loss", "accuracy")}
    of_epochs |= {f"time/{name}" for name in ("train_seconds", "evaluate_seconds")}
    of_epochs |= {"time/examples_per_second"}
    steps = {
        name: [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert {name for name, found in steps.items() if found == [1, 2]} == of_epochs
    # What is known of the whole run only stands at its last epoch.
    assert {tuple(steps[name]) for name in steps.keys() - of_epochs} == {(2,)}


def test_the_tags_say_how_the_run_ended_and_what_it_ran_on(run: Run) -> None:
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.run_name == tags["mlflow.runName"] == "first try"
    expected = {
        "harness.experiment": "baseline",
        "harness.kind": "run",
        "harness.outcome": "completed",
        "harness.device": "cpu",
        "harness.threads": "1",
        "harness.torch": str(torch.__version__),
        "harness.mlflow": mlflow.__version__,
        "colour": "blue",
    }
    assert {name: tags[name] for name in expected} == expected
    assert (
        "python -m harness.run baseline --dataset digits --num-epochs 2"
        in (tags["harness.command"])
    )
    assert "n = 1" in tags["mlflow.note.content"]


def test_both_sets_of_images_are_inputs_with_their_digests(run: Run) -> None:
    dataset = open_dataset("digits", data_root())
    train, _ = dataset.split(0, 0)
    assert run.inputs
    assert len(run.inputs.dataset_inputs) == 2
    for images, context in ((train, "training"), (dataset.test, "test")):
        (found,) = (
            entry.dataset
            for entry in run.inputs.dataset_inputs
            if [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", context)]
        )
        assert found.name == "digits"
        assert found.digest == images.digest[:36]
        assert json.loads(str(found.profile)) == {"num_examples": len(images)}
        assert run.data.tags[f"harness.data.{context}_sha256"] == images.digest


def test_the_description_of_the_experiment_is_kept_with_the_run(
    run: Run, client: MlflowClient
) -> None:
    described = json.loads(text_of(client, run, "experiment.json"))
    assert described["experiment"] == "baseline"
    assert {name: str(value) for name, value in described["parameters"].items()} == run.data.params
    assert described["settings"]["threads"] == 1
    assert [part["size"] for part in described["data"]] == [1437, 360]
    assert described["command"] == run.data.tags["harness.command"]


def test_every_package_is_kept_with_the_run(run: Run, client: MlflowClient) -> None:
    packages = text_of(client, run, "environment.txt").decode().splitlines()
    torch_version = provenance.version("torch")
    assert f"torch=={torch_version}" in packages
    assert packages == sorted(set(packages), key=str.lower)
    assert all("==" in line for line in packages)


@needs_git
def test_the_commit_and_the_changes_since_are_recorded(
    run: Run, client: MlflowClient, finished: Recorded
) -> None:
    checkout, _ = finished
    assert run.data.tags["harness.git_commit"] == checkout.git("rev-parse", "HEAD").strip()
    assert run.data.tags["harness.git_state"] == "dirty"
    changes = text_of(client, run, "changes.diff").decode()
    named = [line for line in changes.splitlines() if line.startswith(("--- ", "+++ "))]
    assert named == [
        *("--- a/experiments/baseline.py", "+++ b/experiments/baseline.py"),
        *("--- a/old_notes.txt", "+++ /dev/null"),
    ]
    told = json.loads(text_of(client, run, "changes.json"))
    assert told["files"].keys() == {"experiments/baseline.py", "old_notes.txt", SECRET_FILE}
    assert told["left_out_of_the_patch"].keys() == {SECRET_FILE}
    assert told["new_files_not_recorded"] == ["keys.py", "new_notes.txt"]
    assert run.data.tags["harness.capability"] == torch.backends.cpu.get_cpu_capability()


def test_a_group_is_the_parent_of_its_runs(group: Recorded) -> None:
    checkout, ended = group
    runs = {run.info.run_id: run for run in checkout.runs()}
    whole = runs.pop(ended.run_id)
    assert whole.data.tags["harness.kind"] == "group"
    assert whole.data.params["seed"] == "4..6"
    assert len(runs) == 3
    for run in runs.values():
        assert run.data.tags["mlflow.parentRunId"] == ended.run_id
        assert run.info.status == whole.info.status == "FINISHED"
    with checkout.opened() as client:
        (found,) = client.search_experiments(filter_string="name = 'softmax_regression'")
        children = client.search_runs(
            [found.experiment_id], f"tags.`mlflow.parentRunId` = '{ended.run_id}'"
        )
    assert {child.info.run_id for child in children} == set(runs)


# ---- where it is recorded ----


PLAIN_CLIENT = """
import mlflow, sys
mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
table = mlflow.search_runs(experiment_names=["baseline"])
run_id = table.loc[table["tags.mlflow.runName"] == "first try", "run_id"].item()
print(mlflow.artifacts.load_text(f"runs:/{run_id}/environment.txt").count("torch=="))
print(type(mlflow.pytorch.load_model(f"runs:/{run_id}/model")).__name__)
"""


def test_mlflow_from_the_root_needs_nothing_of_the_harness(finished: Recorded) -> None:
    checkout, _ = finished
    environment = checkout.environment()
    del environment["PYTHONPATH"]
    # Isolated from the folder it stands in: the harness is not to be found.
    printed = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_CLIENT],
        cwd=checkout.root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.split() == ["1", "GraphModule"]


# ---- what must not be recorded ----


def values(store: Path) -> Iterator[tuple[str, object]]:
    """Every value of every table, with the name of its table."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in connection.execute(query).fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield from ((table, value) for value in row)


def leaves(content: Any) -> Iterator[object]:
    if isinstance(content, dict):
        yield from (leaf for value in content.values() for leaf in leaves(value))
    elif isinstance(content, list):
        yield from (leaf for value in content for leaf in leaves(value))
    else:
        yield content


def test_nobody_and_no_machine_is_named(finished: Recorded) -> None:
    checkout, _ = finished
    found = {value for _, value in values(checkout.store)}
    for file in (checkout.store.parent / "artifacts").rglob("*.json"):
        found |= set(leaves(json.loads(file.read_text())))
    assert "baseline" in found
    assert found & {socket.gethostname(), getpass.getuser()} == set()
    for file in checkout.store.parent.rglob("*"):
        if file.is_file():
            assert USER.encode() not in file.read_bytes(), file


def test_no_artifact_says_where_the_project_lies(finished: Recorded) -> None:
    checkout, _ = finished
    places = [str(checkout.root), str(ROOT), str(Path(sys.prefix)), str(Path.home()) + "/"]
    files = [file for file in (checkout.store.parent / "artifacts").rglob("*") if file.is_file()]
    assert any(file.name == "model.pt2" for file in files)
    for file in files:
        content = file.read_bytes()
        assert [place for place in places if place.encode() in content] == [], file
    recorded = [text for table, text in values(checkout.store) if table != "experiments"]
    assert [text for text in recorded if str(checkout.root) in str(text)] == []


def test_no_secret_is_recorded(finished: Recorded) -> None:
    checkout, ended = finished
    words = {
        "secret-of-a-file",
        "secret-of-a-source",
        "password-of-a-tag",
        "password-of-the-mirror",
        *SECRETS.values(),
    }
    for file in checkout.store.parent.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert [word for word in words if word.encode() in content] == [], file
    with checkout.opened() as client:
        tags = client.get_run(ended.run_id).data.tags
    assert tags["source"] == "https://***@example.org/data"
    assert "--tag source=https://***@example.org/data" in tags["harness.command"]


# ---- one message at a time ----


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowRecorder:
    use_store(tmp_path / "store", monkeypatch)
    return MlflowRecorder()


def test_parameters_are_recorded_with_their_types(recorder: MlflowRecorder) -> None:
    parameters = {
        **{"lr": 0.1, "seed": 2**70, "version": "1.10", "code": "007", "flag": True},
        **{"text": "1e5", "nothing": None},
    }
    run_id = recorder.send(StartRun(record(parameters=parameters, fields={"lr": 0.1})))
    run = recorder.store.client.get_run(run_id)
    assert json.loads(run.data.tags["harness.parameters"]) == parameters
    assert json.loads(run.data.tags["harness.fields"]) == {"lr": 0.1}
    assert run.data.params == {name: str(value) for name, value in parameters.items()}


def test_a_study_names_its_experiment(recorder: MlflowRecorder) -> None:
    run_id = recorder.send(StartRun(record(mlflow_experiment="lr_search", about="*All of it.*")))
    client = recorder.store.client
    run = client.get_run(run_id)
    assert run.data.tags["harness.experiment"] == "baseline"
    found = client.get_experiment(run.info.experiment_id)
    assert (found.name, found.tags["mlflow.note.content"]) == ("lr_search", "*All of it.*")


def test_a_run_ends_with_its_numbers_and_its_words(recorder: MlflowRecorder) -> None:
    run_id = recorder.send(StartRun(record()))
    recorder.post(LogEpoch(run_id, 1, {"train/loss": 0.5}))
    recorder.wait()
    end = EndRun(
        *(run_id, "diverged", 1, {"time/total_seconds": 2.0}),
        tags={"reason": "token=abc"},
        description="**What** it was",
    )
    recorder.send(end)
    run = recorder.store.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["harness.outcome"] == "diverged"
    assert run.data.tags["harness.reason"] == "token=***"
    assert run.data.tags["mlflow.note.content"] == "**What** it was"
    assert run.data.metrics["train/loss"] == 0.5
    assert run.data.metrics["time/total_seconds"] == 2.0


def test_a_run_that_goes_on_is_described_again_if_it_never_was(recorder: MlflowRecorder) -> None:
    run_id = recorder.send(StartRun(record(command=("harness/run.py", "baseline"))))
    recorder.send(EndRun(run_id, "interrupted"))
    assert recorder.store.database
    (file,) = (recorder.store.database.parent / "artifacts").rglob("experiment.json")
    file.unlink()
    again = record(command=("harness/run.py", "--resume", "last"))
    recorder.send(ReopenRun(run_id, str(Owner.current()), ("data", "threads"), again))
    run = recorder.store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("RUNNING", "running")
    assert run.data.tags["harness.allowed_changes"] == "data threads"
    assert json.loads(file.read_text())["command"] == "python -m harness.run baseline"
    recorder.close()
    assert recorder.store.client.get_run(run_id).info.status == "KILLED"


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [("running", "KILLED", "interrupted"), ("completed", "FINISHED", "completed")],
)
def test_a_run_whose_process_died_between_any_two_writes_is_closed(
    recorder: MlflowRecorder, outcome: str, status: str, expected: str
) -> None:
    run_id = recorder.send(StartRun(record(tags={"owner": dead_owner()})))
    recorder.store.client.set_tag(run_id, "harness.outcome", outcome)
    assert MlflowRecorder().send(RecoverRuns()) == Recovered(sent=0, waiting=0)
    run = recorder.store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["harness.outcome"]) == (status, expected)
    assert run.data.tags.get("harness.reason") == (
        "its process died" if outcome == "running" else None
    )


def test_a_run_that_cannot_be_described_has_failed(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = recorder.store.client

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(client, "log_artifacts", fail)
    with pytest.raises(OSError, match="No space left"):
        recorder.send(StartRun(record()))
    (run,) = recorder.store.search("tags.harness.kind = 'run'")
    assert run.info.status == "FAILED"


def test_a_run_that_another_process_has_closed_is_left_as_it_is(recorder: MlflowRecorder) -> None:
    run_ids = [recorder.send(StartRun(record())) for _ in range(3)]
    client = recorder.store.client
    client.set_tag(run_ids[0], "harness.outcome", "completed")
    client.set_terminated(run_ids[0], "FINISHED")
    client.delete_run(run_ids[1])
    recorder.close()
    outcomes = [client.get_run(run_id).data.tags["harness.outcome"] for run_id in run_ids]
    assert outcomes == ["completed", "running", "interrupted"]


def test_nothing_is_opened_before_the_first_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/mlflow.db")
    recorder = MlflowRecorder()
    assert recorder.waiting == 0
    assert recorder.send(SendWaiting()) == 0
    recorder.look_after()
    recorder.wait()
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_every_message_is_known(recorder: MlflowRecorder) -> None:
    class Unknown(Message[None]):
        pass

    with pytest.raises(TypeError, match="the recorder does not know the message"):
        recorder.send(Unknown())


def test_the_harness_replaces_its_own_description_alone(
    recorder: MlflowRecorder,
) -> None:
    def end(run_id: str, description: str) -> str:
        recorder.send(EndRun(run_id, "completed", description=description))
        note: str = recorder.store.client.get_run(run_id).data.tags["mlflow.note.content"]
        return note

    run_id = recorder.send(StartRun(record()))
    assert end(run_id, "first") == "first"
    assert end(run_id, "second") == "second"
    recorder.store.client.set_tag(run_id, "mlflow.note.content", "second, and mine")
    assert end(run_id, "third") == "second, and mine"
    recorder.store.client.set_tag(run_id, "mlflow.note.content", "")
    assert end(run_id, "fourth") == "fourth"


def test_a_run_that_somebody_deletes_is_named_with_the_way_back(recorder: MlflowRecorder) -> None:
    run_id = recorder.send(StartRun(record()))
    recorder.store.client.delete_run(run_id)
    with pytest.raises(RunFailed) as failed:
        recorder.send(LogEpoch(run_id, 1, {"train/loss": 1.0}))
    assert f"the run {run_id} was deleted in MLflow. Restore it with:\n" in str(failed.value)
    assert str(failed.value).endswith(f"python -m mlflow runs restore --run-id {run_id}")


def test_a_run_that_is_deleted_for_good_is_lost(recorder: MlflowRecorder) -> None:
    run_id = recorder.send(StartRun(record()))
    database = recorder.store.database
    assert database
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for name in ("tags", "params", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {name} WHERE run_uuid = ?", (run_id,))
    with pytest.raises(RecordLost, match="deleted in MLflow, for good"):
        recorder.send(LogEpoch(run_id, 1, {"train/loss": 1.0}))


def test_a_trial_that_somebody_deletes_does_not_end_its_study(recorder: MlflowRecorder) -> None:
    gone, kept = (recorder.send(StartRun(record(kind="trial"))) for _ in range(2))
    recorder.store.client.delete_run(gone)
    with pytest.warns(UserWarning, match=f"{gone} was deleted in MLflow: the rest of this trial"):
        recorder.send(LogEpoch(gone, 1, {"train/loss": 1.0}))
    for run_id in (gone, kept):
        recorder.send(LogEpoch(run_id, 2, {"train/loss": 0.5}))
        recorder.send(EndRun(run_id, "completed"))
    assert recorder.store.client.get_run(kept).info.status == "FINISHED"
    assert recorder.store.client.get_run(gone).data.metrics == {}
