"""The two databases: foreign, locked, read-only, damaged, full, moved, created by many at once."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Checkout, Recorded, bound_by_file_modes, free_port, once
from mlflow.store.db import utils as mlflow_database

from harness.base import sqlite
from harness.base.errors import RunFailed
from harness.search import storage
from harness.tracking.messages import OpenStore, SaveArtifacts
from harness.tracking.recorder import MlflowRecorder
from harness.training import checkpoint

NAMES = ("mlflow.db", "optuna.db")


def open_mlflow(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        MlflowRecorder().send(OpenStore())


def open_optuna(path: Path) -> None:
    storage.open_storage(storage.storage_url(f"sqlite:///{path}"))


OPEN: dict[str, Callable[[Path], None]] = {"mlflow.db": open_mlflow, "optuna.db": open_optuna}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Both databases as they are created, without anything left to be written into them."""
    contents = {}
    for name, opened in OPEN.items():
        path = tmp_path_factory.mktemp("whole") / name
        opened(path)
        copy = path.with_suffix(".copy")
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        contents[name] = copy.read_bytes()
    return contents


def write_newer(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")


def write_foreign(path: Path, content: bytes) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


BAD: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "foreign": (write_foreign, "not a database of {library} (its tables: recipes)"),
    "garbage": (
        lambda path, _: path.write_bytes(b"nothing" * 999),
        "the database is damaged (file",
    ),
    "truncated": (
        lambda path, whole: path.write_bytes(whole[:9999]),
        "the database is damaged (da",
    ),
    "folder": (lambda path, _: path.mkdir(), "this is a folder, not a database"),
}
"""Ways in which a database is of no use, and the message."""


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", NAMES)
def test_a_database_of_no_use_is_named_and_stays_as_it_is(
    whole: dict[str, bytes], tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / name
    write, message = BAD[kind]
    write(path, whole[name])
    before = content_of(path)
    with pytest.raises(RunFailed) as refused:
        OPEN[name](path)
    library = {"mlflow.db": "MLflow 3.", "optuna.db": "Optuna "}[name]
    words = message.partition("{library}")
    assert str(refused.value).startswith(f"{path}: {words[0]}{library if words[1] else ''}")
    assert words[2] in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(path))
    assert content_of(path) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_database_of_a_newer_version_is_refused_in_one_line(
    whole: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    write_newer(path, whole[name])
    with pytest.raises(RunFailed) as refused:
        OPEN[name](path)
    refusal = {
        "mlflow.db": f"{path}: written by another version of MLflow (its tables have version f",
        "optuna.db": f"The storage sqlite:///{path} cannot be opened: ",
    }[name]
    assert str(refused.value).startswith(refusal)
    assert "\n" not in str(refused.value)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("ffffffffffff",)
        ]


@pytest.mark.parametrize("name", NAMES)
def test_a_locked_database_is_waited_for_and_then_named(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sqlite, "PATIENT_SECONDS", 0.1)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    path = tmp_path / name
    path.write_bytes(whole[name])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with (
            pytest.warns(UserWarning, match="waiting up to 0.2 s"),
            pytest.raises(RunFailed, match=f"{path}: locked by another program for more"),
        ):
            OPEN[name](path)
        holder.execute("ROLLBACK")
    assert path.read_bytes() == whole[name]
    OPEN[name](path)


OPENING = """
import sys
from pathlib import Path
from harness.base.errors import RunFailed
from test_stores import OPEN
for word in sys.argv[1:]:
    path = Path(word)
    try:
        OPEN[path.name](path)
    except RunFailed as error:
        print(error)
"""


def test_what_may_not_be_written_is_named(whole: dict[str, bytes], tmp_path: Path) -> None:
    read_only, in_read_only = ([tmp_path / kind / name for name in NAMES] for kind in "ab")
    for path in (*read_only, *in_read_only):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole[path.name])
    for path in read_only:
        path.chmod(0o444)
    (tmp_path / "b").chmod(0o555)
    said = subprocess.run(
        [*bound_by_file_modes(), sys.executable, "-c", OPENING, *read_only, *in_read_only],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "b").chmod(0o755)
    assert said.splitlines() == [
        *(f"{path}: it may only be read: the file is read-only." for path in read_only),
        *(f"{path}: it may only be read: its folder is not writable." for path in in_read_only),
    ]
    for folder in ("a", "b"):
        assert {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} == whole


def test_commands_say_so_before_any_training(whole: dict[str, bytes], checkout: Checkout) -> None:
    folder = checkout.root / "mlruns"
    folder.mkdir()
    words = ("--dataset", "digits", "--threads", "1")
    write_foreign(folder / "optuna.db", whole["optuna.db"])
    (folder / "mlflow.db").write_bytes(whole["mlflow.db"][:9999])
    before = {name: (folder / name).read_bytes() for name in NAMES}
    for ended, name in (
        (checkout.command("harness.study", "lr_search", *words), "optuna.db"),
        (checkout.run("softmax_regression", *words), "mlflow.db"),
        (checkout.command("harness.ui", "--no-browser", "--port", str(free_port())), "mlflow.db"),
    ):
        assert ended.status == 1
        assert ended.output == ""
        assert ended.errors.startswith(f"error: {folder / name}: ")
        assert len(ended.errors.splitlines()) == 1
    assert {name: (folder / name).read_bytes() for name in NAMES} == before
    assert not (folder / "checkpoints").exists()


def test_whoever_dies_while_the_store_is_created_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    make = mlflow_database._initialize_tables

    def die(engine: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE experiments (half INTEGER)")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_database, "_initialize_tables", die)
    with pytest.raises(KeyboardInterrupt):
        open_mlflow(path)
    assert not path.exists()
    monkeypatch.setattr(mlflow_database, "_initialize_tables", make)
    open_mlflow(path)
    assert {file.name for file in tmp_path.iterdir()} <= {
        *("mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.lock"),
    }


# ---- a full disk ----

DIGITS = ("--dataset", "digits", "--threads", "1")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 48 MB in the place of a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may put a small disk somewhere")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left; return the file that holds it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
    return ballast


def check_whole(folder: Path) -> None:
    """What was on the disk before it was full is still whole."""
    for name in NAMES:
        if (folder / name).exists():
            with contextlib.closing(sqlite3.connect(folder / name)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for run in (folder / "checkpoints").glob("*"):
        path = checkpoint.latest_first(run)[0]
        assert checkpoint.history(path, checkpoint.load(path))


def numbers(checkout: Checkout, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric's steps and values, but those of clocks and memory."""
    with checkout.opened() as client:
        return {
            name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)]
            for name in client.get_run(run_id).data.metrics
            if not name.startswith(("time/", "memory/", "model/"))
        }


def weights(checkout: Checkout, run_id: str) -> dict[str, bytes]:
    folder = checkout.root / "mlruns" / "checkpoints" / run_id
    network = checkpoint.load(checkpoint.latest_first(folder)[0]).state()["network"]
    return {name: tensor.numpy().tobytes() for name, tensor in network.items()}


RUN = ("dropout_mlp", *DIGITS, "--num-epochs", "80", "--no-figures")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """The run when nothing comes in between."""
    checkout, ended = once(tmp_path_factory, "undisturbed", (*RUN, "--quiet"))
    return checkout, ended.run_id


def check_that_it_goes_on(checkout: Checkout, errors: str, whole: tuple[Checkout, str]) -> None:
    """A run that ended in an error is resumed as it said, to the numbers of one that did not."""
    message, hint = errors.splitlines()
    assert message.startswith("error: ")
    assert len(message) < 400
    run_id = hint.rpartition("--resume ")[2]
    resumed = checkout.run("--resume", run_id, "--quiet")
    assert resumed.status == 0, resumed
    assert resumed.run_id == run_id
    assert numbers(checkout, run_id) == numbers(*whole)
    assert weights(checkout, run_id) == weights(*whole)


def test_a_full_disk_stops_a_run_that_goes_on_once_there_is_room(
    checkout: Checkout, undisturbed: tuple[Checkout, str]
) -> None:
    mlruns = checkout.root / "mlruns"
    with small_disk(mlruns):
        with checkout.running(*RUN) as process:
            assert process.stdout
            assert process.stdout.readline().startswith("epoch")
            ballast = fill(mlruns)
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "Traceback" not in errors
        assert "No space left" in errors or "full" in errors
        check_whole(mlruns)
        ballast.unlink()
        check_that_it_goes_on(checkout, errors, undisturbed)


def test_a_file_too_large_stops_a_run_that_goes_on_without_the_limit(
    checkout: Checkout, undisturbed: tuple[Checkout, str]
) -> None:
    with checkout.running(*RUN) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("epoch")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "File too large" in errors
    check_whole(checkout.root / "mlruns")
    (run,) = checkout.runs()
    assert "File too large" in run.data.tags["harness.reason"]
    check_that_it_goes_on(checkout, errors, undisturbed)


def test_a_full_disk_stops_a_study_that_goes_on_once_there_is_room(checkout: Checkout) -> None:
    mlruns = checkout.root / "mlruns"
    words = ("--n-trials", "16", "--num-epochs", "3", "--confirm-seeds", "0", "--workers", "2")
    command = ("harness.study", "lr_search", *DIGITS, *words)
    with small_disk(mlruns):
        process = checkout.start(*command, stderr=subprocess.PIPE)
        assert process.stdout
        while not re.match(r"\[\d+/16\] trial", process.stdout.readline()):
            assert process.poll() is None
        ballast = fill(mlruns)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "Traceback" not in errors
        assert len(errors.splitlines()) <= 4
        check_whole(mlruns)
        ballast.unlink()
        ended = checkout.command(*command)
        assert ended.status == 0, ended
        stored = storage.load_stored(f"sqlite:///{mlruns}/optuna.db", "lr_search")
        outcomes = [trial.user_attrs["outcome"] for trial in stored.get_trials()]
        assert len([outcome for outcome in outcomes if outcome != "interrupted"]) == 16
        assert "failed" not in outcomes


def test_an_artifact_that_does_not_fit_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    with small_disk(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        recorder = MlflowRecorder()
        experiment_id = recorder.store.experiment_id("baseline", "")
        run_id = recorder.store.client.create_run(experiment_id).info.run_id
        with pytest.raises(OSError, match="No space left on device"):
            recorder.send(SaveArtifacts(run_id, {"large": bytes(60_000_000)}))
        check_whole(folder)


# ---- a moved checkout ----


def test_a_moved_checkout_shows_its_figures(finished: Recorded, tmp_path: Path) -> None:
    recorded, ended = finished
    moved = Checkout(tmp_path / "another" / "place")
    shutil.copytree(recorded.root, moved.root)
    port = free_port()
    process = moved.start(
        "harness.ui", "--no-browser", "--port", str(port), cwd=moved.root / "studies"
    )
    try:
        assert process.stdout
        token = re.findall(rf":{port}/\?token=([\w-]+)", process.stdout.readline())[0]
        with moved.opened() as client:
            figures = [file.path for file in client.list_artifacts(ended.run_id, "figures")]
            assert [name for name in figures if name.endswith(".png")]
            for name in figures:
                where = f"http://127.0.0.1:{port}/get-artifact?path={name}&run_id={ended.run_id}"
                headers = {"Authorization": f"Bearer {token}"}
                with urllib.request.urlopen(
                    urllib.request.Request(where, headers=headers)
                ) as reply:
                    shown = reply.read()
                (file,) = (moved.root / "mlruns" / "artifacts").glob(f"*/{ended.run_id}/*/{name}")
                assert shown == file.read_bytes()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_no_experiment_of_the_store_is_tied_to_a_place(finished: Recorded) -> None:
    checkout, _ = finished
    with checkout.opened() as client:
        places = {found.name: found.artifact_location for found in client.search_experiments()}
    assert places.keys() == {"Default", "baseline"}
    assert [place for place in places.values() if not place.startswith("mlruns/artifacts/")] == []


SLOW = '''"""A baseline whose epochs take a while."""
import time

from experiments.baseline import Baseline


class Slow(Baseline):
    """A baseline that sleeps."""

    def observe(self, training):
        time.sleep(0.4)
        return {}
'''


@contextlib.contextmanager
def slow_run(checkout: Checkout) -> Iterator[subprocess.Popen[str]]:
    """A run of six epochs, of which the second one has been recorded."""
    (checkout.root / "experiments" / "slow.py").write_text(SLOW)
    words = ("slow", "--dataset", "digits", "--num-epochs", "6", "--threads", "1")
    with checkout.running(*words) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("epoch 2/6"):
            assert process.poll() is None
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("deleted", ["mlruns", "mlruns/mlflow.db", "mlruns/mlflow.db*"])
def test_a_run_whose_record_is_deleted_says_so_and_is_recorded_anew(
    checkout: Checkout, deleted: str
) -> None:
    with slow_run(checkout) as process:
        for path in checkout.root.glob(deleted):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "mlflow.db was deleted or replaced while runs were recorded" in errors
    (failed,) = checkout.runs()
    assert failed.data.tags["harness.outcome"] == "failed"
    assert f"--resume {failed.info.run_id}" in errors
    resumed = checkout.run("--resume", "last")
    assert resumed.status == 0, resumed.errors
    assert resumed.run_id == failed.info.run_id
    verified = checkout.command("harness.verify", resumed.run_id)
    assert "identical" in verified.output, verified.output + verified.errors


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
def test_a_replaced_database_is_not_written_to(checkout: Checkout) -> None:
    with slow_run(checkout) as process:
        other = checkout.root / "other.db"
        with contextlib.closing(sqlite3.connect(other)) as connection, connection:
            connection.execute("CREATE TABLE own (x)")
        content = other.read_bytes()
        other.replace(checkout.store)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "mlflow.db was deleted or replaced" in errors or "not a database of MLflow" in errors
    assert checkout.store.read_bytes() == content


def test_a_run_waits_while_another_program_has_locked_the_database(checkout: Checkout) -> None:
    with slow_run(checkout) as process:
        with contextlib.closing(
            sqlite3.connect(checkout.store, isolation_level=None, timeout=60)
        ) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            # MLflow itself gives up after 20 s; then the warning comes.
            assert process.stderr
            assert "is locked by another program; waiting" in process.stderr.readline()
            holder.execute("COMMIT")
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "completed after 6 epochs" in output
    (run,) = checkout.runs()
    with checkout.opened() as client:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "test/loss")]
    assert steps == [1, 2, 3, 4, 5, 6]
