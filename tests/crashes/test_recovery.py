"""What dead processes left open is closed at the next command; what lives is left alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import optuna
import pytest
from conftest import Checkout, processes_in

from harness.base import ownership
from harness.base.ownership import Owner
from harness.tracking.messages import RecoverRuns
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.store import RunState

MODULES = (
    "harness.run",
    "harness.study",
    "harness.workers.worker",
    "harness.tracking.recorder_process",
)

ENDLESS = ("baseline", "--dataset", "digits", "--threads", "1", "--num-epochs", "100000")


@contextlib.contextmanager
def running(checkout: Checkout, module: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = checkout.start(module, *words, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        cut_the_power(checkout)
        process.communicate()


def cut_the_power(checkout: Checkout) -> None:
    """Kill every process of a checkout at once."""
    victims = processes_in(checkout.root, MODULES)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: nobody sees another die
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    while processes_in(checkout.root, MODULES):
        time.sleep(0.02)


def begun(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"it has ended without a line that begins with {word!r}")


def statuses(checkout: Checkout) -> Counter[tuple[str, str]]:
    return Counter((run.data.tags["harness.kind"], run.info.status) for run in checkout.runs())


def test_a_run_whose_processes_all_died_is_closed_by_the_next_command(checkout: Checkout) -> None:
    with running(checkout, "harness.run", *ENDLESS) as process:
        begun(process, "epoch")
        cut_the_power(checkout)
    assert statuses(checkout) == {("run", "RUNNING"): 1}
    assert checkout.command("harness.sync").status == 0
    (run,) = checkout.runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["harness.outcome"] == "interrupted"
    assert run.data.tags["harness.reason"] == "its process died"
    assert list((checkout.root / "mlruns" / "processes").glob("*.json")) == []


def test_a_study_whose_processes_all_died_is_closed_by_any_command(checkout: Checkout) -> None:
    words = ("init_std_search", *ENDLESS[1:], "--workers", "1")
    with running(checkout, "harness.study", *words) as process:
        begun(process, "0 of ")
        deadline = time.monotonic() + 60
        while not begun_trials(checkout):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(0.3)
        cut_the_power(checkout)
    assert statuses(checkout) == {("study", "RUNNING"): 1, ("trial", "RUNNING"): 1}
    other = checkout.run("softmax_regression", *ENDLESS[1:-1], "1", "--no-figures")
    assert other.status == 0, other.errors
    assert statuses(checkout) == {
        ("study", "KILLED"): 1,
        ("trial", "KILLED"): 1,
        ("run", "FINISHED"): 1,
    }
    storage = f"sqlite:///{checkout.root}/mlruns/optuna.db"
    study = optuna.load_study(study_name="init_std_search", storage=storage)
    interrupted, queued, *_ = study.trials
    assert interrupted.user_attrs["outcome"] == "interrupted"
    assert {trial.state.name for trial in study.trials} == {"FAIL", "WAITING"}
    assert queued.user_attrs["retry_of"] == interrupted.number


def begun_trials(checkout: Checkout) -> int:
    """How many trials are recorded; read without MLflow, which would make the database itself."""
    query = "SELECT count(*) FROM tags WHERE key = 'harness.kind' AND value = 'trial'"
    try:
        with sqlite3.connect(f"file:{checkout.store}?mode=ro", uri=True) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # it is only being made
        return 0


@pytest.mark.parametrize("where", ["here", "on another machine"])
def test_the_run_of_a_live_process_is_left_alone(checkout: Checkout, where: str) -> None:
    with running(checkout, "harness.run", *ENDLESS) as process:
        begun(process, "epoch")
        if where == "on another machine":
            (run,) = checkout.runs()
            owner = json.loads(run.data.tags["harness.owner"])
            with checkout.opened() as client:
                elsewhere = json.dumps(owner | {"boot": "another", "machine": "0123456789abcdef"})
                client.set_tag(run.info.run_id, "harness.owner", elsewhere)
            cut_the_power(checkout)
        assert checkout.command("harness.sync").status == 0
        assert statuses(checkout) == {("run", "RUNNING"): 1}


@pytest.mark.parametrize(
    ("silent", "listed"),
    [(0, True), (ownership.DEAD_AFTER_SECONDS + 60, False)],
    ids=["beats", "silent"],
)
def test_a_run_of_an_earlier_boot_counts_as_dead_once_it_was_silent(
    checkout: Checkout, silent: float, listed: bool
) -> None:
    identity = Owner.current().machine
    if not identity or not Owner.current().boot:
        pytest.skip("this machine has no identity that survives a boot")
    with running(checkout, "harness.run", *ENDLESS) as process:
        begun(process, "epoch")
        cut_the_power(checkout)
    (run,) = checkout.runs()
    beat = time.time() - silent
    owner = json.loads(run.data.tags["harness.owner"]) | {"boot": "an earlier boot"}
    with contextlib.closing(sqlite3.connect(checkout.store)) as connection, connection:
        connection.execute("UPDATE runs SET start_time = start_time - 3600000")
    with checkout.opened() as client:
        client.set_tag(run.info.run_id, "harness.owner", json.dumps(owner))
        client.set_tag(run.info.run_id, "harness.heartbeat", str(beat))
    (registered,) = (checkout.root / "mlruns" / "processes").glob("*.json")
    work = json.loads(registered.read_text())
    registered.write_text(json.dumps(work | {"owner": json.dumps(owner)}))
    os.utime(registered, (beat - 3600, beat - 3600))
    synced = checkout.command("harness.sync")
    assert synced.status == 0, synced.errors
    assert (f"--resume {run.info.run_id} --take-over" in synced.output) == listed
    (run,) = checkout.runs()
    assert run.info.status == ("RUNNING" if listed else "KILLED")
    # Whoever comes later can still judge it.
    assert registered.exists() == listed


def test_a_run_that_ends_in_order_while_others_clear_up_keeps_its_outcome(
    checkout: Checkout,
) -> None:
    with running(checkout, "harness.run", *ENDLESS) as process:
        begun(process, "epoch")
        with checkout.opened():
            recorder = MlflowRecorder()
            running_now = recorder.store.running

            def ends_meanwhile() -> list[RunState]:
                found = running_now()
                assert [run.outcome for run in found] == ["running"]
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=120)
                return found

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(recorder.store, "running", ends_meanwhile)
                recorder.send(RecoverRuns())
    (run,) = checkout.runs()
    assert run.data.tags["harness.outcome"] == "interrupted"
    assert run.data.tags.get("harness.reason") != "its process died"


def in_a_container() -> list[str]:
    """What stands before a command so that it has process ids and a host name of its own."""
    words = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or subprocess.call([*words, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("namespaces cannot be made here")
    return words


def test_a_run_whose_container_has_ended_is_taken_over_on_demand(checkout: Checkout) -> None:
    words = ("softmax_regression", "--dataset", "digits", "--threads", "1", "--num-epochs", "400")
    container = subprocess.Popen(
        [*in_a_container(), sys.executable, "-m", "harness.run", *words],
        cwd=checkout.root,
        env=checkout.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        begun(container, "epoch")
        (run,) = checkout.runs()
        # While it lives, nothing touches it.
        listed = checkout.command("harness.sync")
        assert f"--resume {run.info.run_id} --take-over" in listed.output
        assert statuses(checkout) == {("run", "RUNNING"): 1}
    finally:
        os.killpg(container.pid, signal.SIGKILL)
        container.communicate()
    deadline = time.monotonic() + 60
    while processes_in(checkout.root, MODULES) and time.monotonic() < deadline:
        time.sleep(0.05)
    refused = checkout.run("--resume", run.info.run_id)
    assert refused.status == 2
    assert "cannot be told from here" in refused.errors
    assert f"--resume {run.info.run_id} --take-over" in refused.errors
    taken = checkout.run("--resume", run.info.run_id, "--take-over")
    assert taken.status == 0, taken.errors
    assert "completed after 400 epochs" in taken.output
    assert "--take-over" not in checkout.command("harness.sync").output


def test_a_living_process_is_not_taken_over(checkout: Checkout) -> None:
    with running(checkout, "harness.run", *ENDLESS) as process:
        begun(process, "epoch")
        (run,) = checkout.runs()
        refused = checkout.run("--resume", run.info.run_id, "--take-over")
        assert refused.status == 2
        assert f"is still running, in process {process.pid}" in refused.errors
