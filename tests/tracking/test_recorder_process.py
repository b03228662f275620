"""The recorder as a process: what crosses the border, and what is left when one side dies."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, Checkout, Ended
from mlflow import MlflowClient
from records import record, use_store

from harness.base import ownership
from harness.base.errors import BadRequest, RunFailed
from harness.tracking import recorder as mlflow_recorder
from harness.tracking import recorder_process
from harness.tracking.messages import EndRun, LogEpoch, OpenStore, SaveArtifacts, StartRun
from harness.tracking.recorder_process import RecorderProcess

pytestmark = pytest.mark.processes


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ownership, "register_folder", lambda: tmp_path / "processes")
    return use_store(tmp_path / "store", monkeypatch)


@pytest.fixture
def recorder(store: Path) -> Iterator[RecorderProcess]:
    with contextlib.closing(RecorderProcess()) as recorder:
        yield recorder


def test_a_run_is_recorded_by_the_other_process(recorder: RecorderProcess, tmp_path: Path) -> None:
    recorder.post(OpenStore())
    run_id = recorder.send(StartRun(record()))
    assert len(list((tmp_path / "processes").iterdir())) == 1
    for epoch in range(1, 501):  # more than a pipe holds
        recorder.post(LogEpoch(run_id, epoch, {"train/loss": 1 / epoch}))
    recorder.wait()
    history = MlflowClient().get_metric_history(run_id, "train/loss")
    assert [metric.step for metric in history] == list(range(1, 501))
    recorder.send(EndRun(run_id, "completed"))
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    recorder.close()
    assert list((tmp_path / "processes").iterdir()) == []


def test_a_failed_post_is_raised_once_and_before_anything_else(recorder: RecorderProcess) -> None:
    run_id = recorder.send(StartRun(record()))
    recorder.post(LogEpoch("f" * 32, 1, {"loss": 1.0}))
    recorder.post(LogEpoch("e" * 32, 1, {"loss": 1.0}))
    recorder.post(LogEpoch(run_id, 1, {"loss": 1.0}))
    with pytest.raises(RunFailed, match="The record could not be written: .*" + "f" * 32):
        recorder.send(LogEpoch(run_id, 2, {"loss": 2.0}))
    recorder.wait()
    # The message that was answered with the failure was not carried out; the posts were tried.
    history = MlflowClient().get_metric_history(run_id, "loss")
    assert [metric.step for metric in history] == [1]
    recorder.post(LogEpoch("f" * 32, 1, {"loss": 1.0}))
    with pytest.raises(RunFailed, match="could not be written"):
        recorder.wait()
    recorder.send(EndRun(run_id, "completed"))


def test_a_bad_request_arrives_as_one(recorder: RecorderProcess) -> None:
    with pytest.raises(BadRequest, match="would lie outside of the run"):
        recorder.send(SaveArtifacts("0" * 32, {"../a": b""}))


def test_a_recorder_that_dies_is_named(recorder: RecorderProcess) -> None:
    run_id = recorder.send(StartRun(record()))
    recorder._process.kill()
    recorder._process.wait()
    with pytest.raises(RunFailed, match="The recorder's process died"):
        recorder.send(LogEpoch(run_id, 1, {"loss": 1.0}))
    with pytest.raises(RunFailed, match="The recorder's process died"):
        recorder.post(LogEpoch(run_id, 1, {"loss": 1.0}))


def test_a_recorder_that_got_no_message_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/mlflow.db")
    recorder = RecorderProcess()
    started = time.monotonic()
    recorder.close()
    assert recorder._process.returncode == -signal.SIGKILL
    assert time.monotonic() - started < 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_open_at_the_end_was_interrupted(store: Path) -> None:
    with contextlib.closing(RecorderProcess()) as recorder:
        left, ended = (recorder.send(StartRun(record())) for _ in range(2))
        recorder.send(EndRun(ended, "failed"))
    runs = {run_id: MlflowClient().get_run(run_id) for run_id in (left, ended)}
    assert runs[left].info.status == "KILLED"
    assert runs[left].data.tags["harness.outcome"] == "interrupted"
    assert runs[left].data.tags["harness.reason"] == "its process died"
    assert runs[ended].data.tags["harness.outcome"] == "failed"


def test_a_run_has_a_heartbeat_as_long_as_it_is_open(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while no message arrives, as during a long epoch."""
    monkeypatch.setattr(mlflow_recorder, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(recorder_process, "IDLE_SECONDS", 0.05)
    ours, theirs = multiprocessing.Pipe()
    serving = threading.Thread(target=recorder_process.serve_messages, args=(theirs,))
    serving.start()

    def send(message: object) -> str:
        ours.send((message, True))
        failure, reply = ours.recv()
        assert failure is None
        return str(reply)

    def beat(run_id: str) -> float:
        tags = MlflowClient().get_run(run_id).data.tags
        return float(tags.get("harness.heartbeat", 0))

    try:
        ended, left = (send(StartRun(record())) for _ in range(2))
        for _ in range(2):
            before = max(time.time(), beat(ended), beat(left))
            deadline = time.monotonic() + 60
            while min(beat(ended), beat(left)) <= before:
                assert time.monotonic() < deadline, "there is no heartbeat"
                time.sleep(0.05)
        send(EndRun(ended, "completed"))
        last, before = beat(ended), beat(left)
        while beat(left) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert beat(ended) == last
        MlflowClient().delete_run(left)
        send(OpenStore())
    finally:
        ours.close()
        serving.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_leaves_the_connection_to_its_parent(recorder: RecorderProcess) -> None:
    run_id = recorder.send(StartRun(record()))
    child = os.fork()
    if not child:
        recorder.forget()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    recorder.send(LogEpoch(run_id, 1, {"loss": 1.0}))
    recorder.send(EndRun(run_id, "completed"))


DYING = """
import os, signal, sys
sys.path.insert(0, "tests/tracking")
from pathlib import Path
from records import record
from harness.base import ownership
ownership.register_folder = lambda: Path(sys.argv[1])
from harness.tracking.messages import LogEpoch, StartRun
from harness.tracking.recorder_process import RecorderProcess

recorder = RecorderProcess()
run_id = recorder.send(StartRun(record()))
print(run_id, recorder._process.pid, flush=True)
for epoch in range(1, 51):
    recorder.post(LogEpoch(run_id, epoch, {"loss": 1.0}))
if sys.argv[2] == "both":
    os.kill(recorder._process.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("who", ["sender", "both"])
def test_whoever_is_killed_leaves_a_record_that_is_closed(
    store: Path, tmp_path: Path, who: str
) -> None:
    register = tmp_path / "processes"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DYING), str(register), who],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    run_id, pid = ended.stdout.split()
    deadline = time.monotonic() + 30
    while is_alive(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    steps = [m.step for m in MlflowClient().get_metric_history(run_id, "loss")]
    tags = MlflowClient().get_run(run_id).data.tags
    if who == "sender":
        # What had been sent is recorded; the last message may have been cut off.
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= 49
    else:
        assert tags["harness.outcome"] == "running"
        (left,) = register.iterdir()
        assert set(json.loads(left.read_text())) == {"owner", "work"}
        with contextlib.closing(RecorderProcess()) as recorder:
            recorder.send(OpenStore())
        tags = MlflowClient().get_run(run_id).data.tags
    assert tags["harness.outcome"] == "interrupted"
    assert tags["harness.reason"] == "its process died"
    assert MlflowClient().get_run(run_id).info.status == "KILLED"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


# ---- a server that is away from the start ----


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
