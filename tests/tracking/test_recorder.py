"""What a run records, read back through MLflow's own client: everything, once, and no secret."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import GIT, QUICK, SECRETS, USER, Checkout, Ended, Recorded
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.baseline import Baseline
from experiments.dropout_mlp import DropoutMlp
from experiments.lenet import LeNet
from experiments.softmax_regression import SoftmaxRegression
from harness.base import privacy, provenance
from harness.base.errors import RunFailed
from harness.base.project import ROOT
from harness.cli import run_progress
from harness.runs import runner
from harness.tracking import recorder_process
from harness.tracking.messages import OpenStore
from harness.tracking.recorder import MlflowRecorder
from harness.training.datasets import Images
from harness.training.device import Execution
from harness.training.experiment import Experiment


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
    of_epochs |= {"time/images_per_second"}
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
    prepared = runner.prepare(Baseline(dataset="digits"), None)
    assert run.inputs
    assert len(run.inputs.dataset_inputs) == 2
    for images, context in ((prepared.train, "training"), (prepared.evaluation, "test")):
        (dataset,) = (
            entry.dataset
            for entry in run.inputs.dataset_inputs
            if [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", context)]
        )
        assert dataset.name == "digits"
        assert dataset.digest == images.digest[:36]
        assert json.loads(str(dataset.profile)) == {"num_images": len(images)}
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
    assert run.data.tags["harness.git_dirty"] == "true"
    changes = text_of(client, run, "changes.diff").decode()
    named = [line for line in changes.splitlines() if line.startswith(("--- ", "+++ "))]
    assert named == [
        *("--- a/experiments/baseline.py", "+++ b/experiments/baseline.py"),
        *("--- /dev/null", "+++ b/keys.py"),
        *("--- /dev/null", "+++ b/new_notes.txt"),
        *("--- a/old_notes.txt", "+++ /dev/null"),
    ]
    assert "+API_KEY = ***" in changes


@pytest.fixture
def repository(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the project under git, for this process to look at as its own."""
    checkout.git("init", "--quiet")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "All of it")
    monkeypatch.setattr(provenance, "ROOT", checkout.root)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return checkout


@needs_git
def test_the_changes_are_a_patch_that_makes_the_files_again(
    repository: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = tmp_path / "clean"
    repository.git("clone", "--quiet", str(repository.root), str(clean))
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[color]\nui = always\n[diff]\nexternal = true\nnoprefix = true\n"
        "[status]\nshowUntrackedFiles = no\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (repository.root / "new").mkdir()
    (repository.root / "new" / "Größe.txt").write_bytes("Größe\r\nno end of line".encode())
    # Untracked files are all that git is told not to show.
    assert provenance.source().changes
    (repository.root / "pyproject.toml").unlink()
    with (repository.root / "harness" / "run.py").open("a") as file:
        file.write("# changed\n")
    index = (repository.root / ".git" / "index").read_bytes()
    (tmp_path / "changes.diff").write_bytes(provenance.source().changes.encode())
    assert (repository.root / ".git" / "index").read_bytes() == index
    command = ["git", "apply", str(tmp_path / "changes.diff")]
    subprocess.run(command, cwd=clean, check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": ""})
    names = repository.git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, names.split("\0")):
        changed, made = repository.root / name, clean / name
        assert changed.exists() == made.exists(), name
        assert not changed.exists() or changed.read_bytes() == made.read_bytes(), name
    assert (clean / "new" / "Größe.txt").exists()


@needs_git
def test_a_clean_checkout_has_no_changes(repository: Checkout) -> None:
    source = provenance.source()
    assert source == provenance.Source(repository.git("rev-parse", "HEAD").strip(), "")


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.source() == provenance.Source("", "")
    monkeypatch.setenv("PATH", "")
    assert provenance.source() == provenance.Source("", "")


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


# ---- the logged model ----


def recorded_here(experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run an experiment in this process, into a store of its own outside of the project."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setattr(runner, "MLRUNS", folder)
    recorder = MlflowRecorder()
    labels = runner.Labels(figures=False)
    prepared = runner.prepare(experiment, None)
    result = runner.run(
        prepared, Execution(), torch.device("cpu"), recorder, run_progress.Quiet(), labels
    )
    return MlflowClient().get_run(result.run_id)


def accuracy(model: Any, images: Images, batch_size: int) -> float:
    hits = 0
    with torch.no_grad():
        for batch, labels in images.batches(batch_size):
            hits += int((model(batch).argmax(dim=1) == labels).sum())
    return hits / len(images)


@pytest.mark.parametrize("kind", [Baseline, SoftmaxRegression, DropoutMlp, LeNet])
def test_the_logged_model_has_the_recorded_accuracy_at_any_batch_size(
    kind: type[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = kind(dataset="digits", num_epochs=2)
    run = recorded_here(experiment, tmp_path, monkeypatch)
    expected = experiment.parameters() | Execution().parameters()
    assert run.data.params == {name: str(value) for name, value in expected.items()}
    uri = f"runs:/{run.info.run_id}/model"
    model = mlflow.pytorch.load_model(uri)
    test = runner.prepare(experiment, None).evaluation
    recorded = run.data.metrics["test/accuracy"]
    assert 0.1 < recorded < 1
    for batch_size in (1, 7, experiment.batch_size, 360):
        assert accuracy(model, test, batch_size) == recorded
    # Dropout is off, and a network's output does not depend on its neighbours in the batch.
    images, _ = test.batch(torch.arange(5))
    assert torch.equal(model(images), model(images))

    served = mlflow.pyfunc.load_model(uri)
    assert np.array_equal(served.predict(images.numpy()), model(images).detach().numpy())
    with pytest.raises(mlflow.MlflowException, match="schema"):
        served.predict(images.numpy().reshape(5, 784))
    info = mlflow.models.get_model_info(uri)
    assert [spec.shape for spec in info.signature.inputs] == [(-1, 1, 28, 28)]
    assert [spec.shape for spec in info.signature.outputs] == [(-1, 10)]
    example = served.input_example
    train = runner.prepare(experiment, None).train
    assert np.array_equal(example, train.batch(torch.arange(len(example)))[0].numpy())


def test_the_model_belongs_to_its_run(run: Run, client: MlflowClient) -> None:
    assert run.outputs
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, str(model.status), model.source_run_id, output.step) == (
        *("model", "READY", run.info.run_id, 2),
    )
    assert model.params == run.data.params


# ---- where it is recorded ----


def test_a_moved_checkout_loses_nothing(checkout: Checkout, tmp_path: Path) -> None:
    ended = checkout.run("softmax_regression", *QUICK, "--no-figures")
    moved = Checkout(checkout.root.rename(tmp_path / "moved"))
    with moved.opened() as client:
        run = client.get_run(ended.run_id)
        names = {artifact.path for artifact in client.list_artifacts(ended.run_id)}
        assert {"experiment.json", "environment.txt"} <= names
        assert b"softmax_regression" in text_of(client, run, "experiment.json")
        model = mlflow.pytorch.load_model(f"runs:/{ended.run_id}/model")
        test = runner.prepare(SoftmaxRegression(dataset="digits"), None).evaluation
        assert accuracy(model, test, 360) == run.data.metrics["test/accuracy"]
    assert not checkout.root.exists()


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


def refused(checkout: Checkout, server: str) -> Ended:
    uri = f"http://ann:password-of-the-server@{server}"
    ended = checkout.run("softmax_regression", *QUICK, changes={"MLFLOW_TRACKING_URI": uri})
    assert ended.status == 1
    # Nothing was trained.
    assert ended.output == ""
    assert ended.errors.startswith("error: The record store http://***@127.0.0.1")
    assert "password-of-the-server" not in ended.errors
    assert len(ended.errors) < 600
    assert len(ended.errors.splitlines()) == 1
    assert not checkout.store.parent.exists()
    return ended


def test_a_server_that_is_away_is_told_before_the_training(checkout: Checkout) -> None:
    assert refused(checkout, "127.0.0.1:1").seconds < 15


def test_a_server_that_never_answers_is_asked_twice(checkout: Checkout) -> None:
    asked: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asked.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        refused(checkout, f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    for connection in asked:
        connection.close()
    # Four seconds each: the time itself depends on what else the machine does.
    assert len(asked) == 2
    assert recorder_process.ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "4"


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
def test_a_store_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    place = tmp_path / "mlflow.db"
    if content is None:
        (tmp_path / "file").touch()
        place = tmp_path / "file" / "mlflow.db"
    else:
        place.write_bytes(content)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}")
    with pytest.raises(RunFailed, match=str(place.parent)):
        MlflowRecorder().send(OpenStore())


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
    words = {"secret-of-a-file", "password-of-a-tag", "password-of-the-mirror", *SECRETS.values()}
    for file in checkout.store.parent.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert [word for word in words if word.encode() in content] == [], file
    with checkout.opened() as client:
        tags = client.get_run(ended.run_id).data.tags
    assert tags["source"] == "https://***@example.org/data"
    assert "--tag source=https://***@example.org/data" in tags["harness.command"]


# ---- masking ----

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1)
SECRET_NAMES = st.sampled_from(
    [
        "password",
        "PASSWD",
        "client_secret",
        "API_KEY",
        "api-key",
        "apikey",
        "my-token",
        "credential",
    ]
)


@given(user=WORDS, password=WORDS, scheme=st.sampled_from(["http", "postgresql+psycopg2", "s3"]))
def test_the_credentials_of_an_address_are_masked(user: str, password: str, scheme: str) -> None:
    masked = privacy.mask(f"see {scheme}://{user}:{password}@db.example/runs now")
    assert masked == f"see {scheme}://***@db.example/runs now"


@given(
    name=SECRET_NAMES,
    form=st.sampled_from(
        [
            "--{}={}",
            "--{} {}",
            "{}={}",
            "{} = '{}'",
            '{{"{}": "{}"}}',
            "{}: {}",
            "{}:{}",
            "x_{}_y={}",
        ]
    ),
)
def test_the_value_of_a_secret_is_masked(name: str, form: str) -> None:
    masked = privacy.mask(f"before {form.format(name, 'hunter2')}\nafter=1")
    assert "hunter2" not in masked
    assert "***" in masked
    assert masked.startswith("before ")
    assert masked.endswith("\nafter=1")


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    masked = privacy.mask(text)
    assert privacy.mask(masked) == masked


@given(st.text(st.characters(codec="ascii", exclude_characters="@:=")))
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    plain = text.lower()
    telling = ("password", "passwd", "secret", "token", "api", "credential")
    assert any(word in plain for word in telling) or privacy.mask(text) == text


def test_a_long_line_is_masked_in_no_time() -> None:
    text = "a" * 10**6 + " --token=abc " + "token" * 10**5
    assert "abc" not in privacy.mask(text)
