"""An interrupted run goes on to the numbers of one that never stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch
from conftest import Recorded
from mlflow import MlflowClient

from harness.base.project import mlruns
from harness.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ["dropout_mlp", "lenet"]
FEW = ["--dataset", "digits", "--threads", "1", "--no-figures"]


class Store:
    """An MLflow store of the test's own, and the command that records in it."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.uri)

    def begin(self, *words: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.run", *words],
            cwd=cwd,
            env=os.environ | {"MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": str(cwd)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        process = self.begin(*words, cwd=cwd)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def runs(self, experiment: str) -> list[mlflow.entities.Run]:
        found = self.client.get_experiment_by_name(experiment)
        assert found
        return list(self.client.search_runs([found.experiment_id]))

    def only_run(self, experiment: str) -> mlflow.entities.Run:
        (run,) = self.runs(experiment)
        return run

    def numbers(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """Every metric's steps and values, but those of clocks and memory."""
        return {
            name: [(m.step, m.value) for m in self.client.get_metric_history(run_id, name)]
            for name in self.client.get_run(run_id).data.metrics
            if not name.startswith(("time/", "memory/", "model/"))
        }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def run_id_of(output: str) -> str:
    found = re.search(r"^run (\w+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def stopped_after(process: subprocess.Popen[str], epochs: int, number: signal.Signals) -> str:
    """Send a signal once so many epochs were printed; return what was printed in all."""
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(epochs)]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    return "".join(lines) + rest


def weights(run_id: str) -> dict[str, torch.Tensor]:
    path = checkpoint.latest_first(mlruns() / "checkpoints" / run_id)[0]
    network: dict[str, torch.Tensor] = checkpoint.load(path).state()["network"]
    return network


def wait_until_ended(store: Store, experiment: str) -> mlflow.entities.Run:
    """The recorder ends the run of a killed process a moment after its death."""
    deadline = time.monotonic() + 20
    while (run := store.only_run(experiment)).info.status == "RUNNING":
        assert time.monotonic() < deadline, "the run is still RUNNING"
        time.sleep(0.1)
    return run


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_killed_run_goes_on_to_the_same_numbers(experiment: str, tmp_path: Path) -> None:
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    words = [experiment, *FEW, "--num-epochs", "60" if experiment != "lenet" else "12"]
    reference = run_id_of(whole.run(*words).stdout)
    stopped_after(cut.begin(*words), 3, signal.SIGKILL)
    killed = wait_until_ended(cut, experiment)
    assert killed.info.status == "KILLED"
    assert killed.data.tags["harness.outcome"] == "interrupted"
    before = len(cut.numbers(killed.info.run_id)["train/loss"])
    assert 3 <= before < int(words[-1]), "it was not killed in the middle"

    resumed = cut.run("--resume", "last", "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    run_id = run_id_of(resumed.stdout)
    assert run_id == killed.info.run_id
    assert cut.numbers(run_id) == whole.numbers(reference)
    assert cut.client.get_run(run_id).info.status == "FINISHED"
    for name, tensor in weights(run_id).items():
        assert torch.equal(tensor, weights(reference)[name]), name


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    store = Store(tmp_path)
    process = store.begin("baseline", *FEW, "--num-epochs", "500")
    output = stopped_after(process, 2, number)
    assert process.returncode == status
    run = store.only_run("baseline")
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("KILLED", "interrupted")
    assert f"python -m harness.run --resume {run.info.run_id}" in output
    assert weights(run.info.run_id)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = ["dropout_mlp", *FEW, "--num-epochs", "40", "--hidden-width", "32"]
    stopped_after(store.begin(*words), 3, signal.SIGKILL)
    run_id = wait_until_ended(store, "dropout_mlp").info.run_id
    latest, _ = checkpoint.latest_first(mlruns() / "checkpoints" / run_id)
    latest.write_bytes(latest.read_bytes()[:-1])
    resumed = store.run("--resume", run_id)
    assert resumed.returncode == 0, resumed.stderr
    assert latest.name in resumed.stderr
    whole = Store(tmp_path / "whole")
    assert store.numbers(run_id) == whole.numbers(run_id_of(whole.run(*words).stdout))


def test_a_checkpoint_of_another_run_is_named_and_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = ["dropout_mlp", *FEW, "--num-epochs", "40", "--hidden-width", "32"]
    other = run_id_of(store.run(*words, "--seed", "1").stdout)
    whole = run_id_of(store.run(*words).stdout)
    folders = mlruns() / "checkpoints"
    stopped_after(store.begin(*words), 3, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not (killed := [r for r in store.runs("dropout_mlp") if r.info.status == "KILLED"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run_id = killed[0].info.run_id
    mine = checkpoint.latest_first(folders / run_id)[0]
    # Renamed to fit, with its history beside it.
    theirs = checkpoint.path_of(folders / run_id, 39)
    shutil.copy(checkpoint.latest_first(folders / other)[1], theirs)
    shutil.copy(folders / other / "history.jsonl", folders / run_id)
    resumed = store.run("--resume", run_id)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{theirs}: it is of dropout_mlp {other}, not of dropout_mlp {run_id}." in resumed.stderr
    assert f"{mine}: the epochs up to it are damaged." in resumed.stderr
    assert "Traceback" not in resumed.stderr
    assert store.numbers(run_id) == store.numbers(whole)


NOTE = "mlflow.note.content"


def test_what_a_user_writes_on_a_run_survives_its_end_and_its_resume(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = ["dropout_mlp", *FEW, "--num-epochs", "60", "--hidden-width", "32"]
    process = store.begin(*words, "--tag", "colour=blue")
    assert process.stdout
    process.stdout.readline()
    run_id = store.only_run("dropout_mlp").info.run_id
    written = {NOTE: "*mine* 😀 Größe", "colour": "red", "own": "x"}
    for name, value in written.items():
        store.client.set_tag(run_id, name, value)
    store.client.update_run(run_id, name="a name of mine")
    stopped_after(process, 1, signal.SIGINT)
    interrupted = store.client.get_run(run_id)
    assert interrupted.data.tags["harness.outcome"] == "interrupted"
    assert interrupted.data.tags.items() >= written.items()
    store.client.set_tag(run_id, "own", "y")
    assert store.run("--resume", run_id, "--quiet").returncode == 0
    ended = store.client.get_run(run_id)
    assert ended.info.status == "FINISHED"
    assert ended.data.tags.items() >= (written | {"own": "y"}).items()
    assert ended.info.run_name == "a name of mine"


def test_the_size_of_a_checkpoint_does_not_grow(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = ["softmax_regression", *FEW, "--num-epochs", "60", "--keep-checkpoints", "60"]
    run_id = run_id_of(store.run(*words).stdout)
    sizes = [
        path.stat().st_size for path in checkpoint.latest_first(mlruns() / "checkpoints" / run_id)
    ]
    assert len(sizes) == 60
    assert max(sizes) - min(sizes) < 64  # the numbers in it have more digits


def test_fewer_checkpoints_lead_to_the_same_numbers(tmp_path: Path) -> None:
    store, whole = Store(tmp_path), Store(tmp_path / "whole")
    words = ["dropout_mlp", *FEW, "--num-epochs", "50", "--hidden-width", "32"]
    seldom = ["--checkpoint-every", "7", "--keep-checkpoints", "1"]
    stopped_after(store.begin(*words, *seldom), 9, signal.SIGKILL)
    run_id = wait_until_ended(store, "dropout_mlp").info.run_id
    folder = mlruns() / "checkpoints" / run_id
    (saved,) = checkpoint.latest_first(folder)
    assert int(saved.stem.partition("-")[2]) % 7 == 0
    assert store.run("--resume", run_id, "--quiet").returncode == 0
    assert [path.name for path in checkpoint.latest_first(folder)] == ["epoch-000050.checkpoint"]
    assert store.numbers(run_id) == whole.numbers(run_id_of(whole.run(*words).stdout))


def test_a_run_without_a_checkpoint_begins_anew_and_records_nothing_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stopped_after(store.begin("baseline", *FEW, "--num-epochs", "40"), 3, signal.SIGKILL)
    run_id = wait_until_ended(store, "baseline").info.run_id
    shutil.rmtree(mlruns() / "checkpoints" / run_id)
    assert store.run("--resume", run_id, "--quiet").returncode == 0
    assert [step for step, _ in store.numbers(run_id)["train/loss"]] == list(range(1, 41))


def test_a_finished_or_unknown_run_is_refused(store: Store) -> None:
    finished = run_id_of(store.run("softmax_regression", *FEW, "--num-epochs", "1").stdout)
    before = store.numbers(finished)
    for run_id, message in ((finished, "nothing is left"), ("0" * 32, "there is no run")):
        refused = store.run("--resume", run_id)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) <= 3
    assert store.numbers(finished) == before


def test_a_run_that_still_runs_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.begin("baseline", *FEW, "--num-epochs", "3000")
    try:
        assert process.stdout
        process.stdout.readline()
        refused = store.run("--resume", store.only_run("baseline").info.run_id)
        assert refused.returncode == 2
        assert f"is still running, in process {process.pid}" in refused.stderr
    finally:
        process.kill()
        process.communicate()


def test_a_changed_experiment_is_refused_unless_it_is_allowed_by_name(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("harness", "experiments", "studies"):
        shutil.copytree(
            ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    store = Store(tmp_path)
    words = ["softmax_regression", *FEW, "--num-epochs", "200"]
    stopped_after(store.begin(*words, cwd=checkout), 2, signal.SIGTERM)
    path = checkout / "experiments" / "softmax_regression.py"
    path.write_text(path.read_text() + "\n# another comment\n")
    refused = store.run("--resume", "last", cwd=checkout)
    assert refused.returncode == 2
    assert "its file changed" in refused.stderr
    assert "--allow experiment" in refused.stderr
    allowed = store.run("--resume", "last", "--allow", "experiment", "--quiet", cwd=checkout)
    assert allowed.returncode == 0, allowed.stderr
    tags = store.only_run("softmax_regression").data.tags
    assert tags["harness.allowed_changes"] == "experiment"


def test_a_group_is_repeated_and_its_members_are_named(group: Recorded) -> None:
    checkout, ended = group
    members = [run for run in checkout.runs() if "mlflow.parentRunId" in run.data.tags]
    for run_id in (ended.run_id, members[0].info.run_id):
        refused = checkout.run("--resume", run_id)
        assert refused.status == 2
        for member in members:
            assert f"{member.info.run_id[:8]} completed" in refused.errors
        assert "python -m harness.run softmax_regression" in refused.errors
        assert "--repeats 3" in refused.errors
