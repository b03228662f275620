"""The queue of a server that is away: kept in order, sent once, and never stopped by one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from records import dead_owner, use_store

from harness.base import project
from harness.base.errors import RunFailed
from harness.tracking import store_address
from harness.tracking.offline_queue import OfflineQueue
from harness.tracking.store import Store
from harness.tracking.writer import ServerAway
from harness.tracking.writes import CreateRun, LogBatch, LogFiles, TerminateRun, Write


class Server:
    """Stands for the writer of a server, which is away or refuses some runs."""

    def __init__(self) -> None:
        self.answers = True
        self.taken: list[Write] = []
        self.lose_answer = False

    def write(self, write: Write) -> str | None:
        if not self.answers:
            raise ServerAway("no answer")
        if isinstance(write, LogBatch) and write.run_id == "deleted":
            raise MlflowException(
                "the run is deleted; token=abc\nand more", RESOURCE_DOES_NOT_EXIST
            )
        if isinstance(write, LogBatch) and not all(
            isinstance(value, float) for value in write.metrics.values()
        ):
            raise TypeError("a number is needed")
        self.taken.append(write)
        if self.lose_answer:
            raise OSError("the power failed")
        return f"id of {write.key}" if isinstance(write, CreateRun) else None


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def queue(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfflineQueue:
    monkeypatch.setattr(project, "mlruns", lambda: tmp_path / "mlruns")
    return queue_to(server, tmp_path, monkeypatch)


def queue_to(server: Server, folder: Path, patch: pytest.MonkeyPatch) -> OfflineQueue:
    use_store(folder / "store", patch)
    made = OfflineQueue(Store())
    patch.setattr(made, "_writer", server)
    return made


def epoch(number: int, run_id: str = "run") -> LogBatch:
    return LogBatch(run_id, {"loss": 1 / number}, number, number, {})


def waiting(queue: OfflineQueue) -> list[Path]:
    return sorted(queue.folder.glob("*/*.json"))


def test_a_server_that_is_there_gets_everything_at_once(
    queue: OfflineQueue, server: Server
) -> None:
    assert queue.write(CreateRun("key", "baseline", "", "", {}, 1)) == "id of key"
    assert queue.write(epoch(1)) is None
    assert server.taken == [CreateRun("key", "baseline", "", "", {}, 1), epoch(1)]
    assert not queue.folder.exists()


def test_what_a_server_missed_is_sent_in_order_and_once(
    queue: OfflineQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = False
    writes: list[Write] = [
        CreateRun("key", "baseline", "", "", {}, 1),
        LogFiles("key", {"a.png": bytes(range(256))}),
        *(epoch(number, "key") for number in range(1, 12)),
        TerminateRun("key", "FINISHED", 9),
    ]
    assert [queue.write(write) for write in writes] == ["key"] + [None] * (len(writes) - 1)
    assert queue.waiting == len(writes)
    assert not queue.send(at_once=True)
    server.answers = True
    assert queue.send(at_once=True)
    assert server.taken == writes
    assert queue.send(at_once=True)
    assert server.taken == writes
    assert waiting(queue) == []
    assert (queue.folder / "ids" / "key").read_text() == "id of key"
    assert store_address.stored_id("key") == "id of key"
    errors = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in errors] == [
        "warning: the tracking server is away",
        "warning: the tracking server is back",
    ]


def test_a_write_waits_behind_earlier_ones(queue: OfflineQueue, server: Server) -> None:
    server.answers = False
    queue.write(epoch(1))
    server.answers = True
    queue.write(epoch(2))  # the server was tried a moment ago
    assert server.taken == []
    queue._next_try = 0.0
    queue.write(epoch(3))
    assert server.taken == [epoch(1), epoch(2), epoch(3)]


def test_a_server_is_tried_more_and_more_seldom(
    queue: OfflineQueue, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("harness.tracking.offline_queue.time.monotonic", lambda: now)
    server.answers = False
    queue.write(epoch(1))
    waits = []
    for _ in range(8):
        waits.append(queue._next_try - now)
        now = queue._next_try
        assert not queue.send()
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_death_between_sending_and_deleting_sends_a_write_again(
    queue: OfflineQueue, server: Server
) -> None:
    server.answers = False
    queue.write(epoch(1))
    server.answers, server.lose_answer = True, True
    with pytest.raises(OSError, match="the power failed"):
        queue.send(at_once=True)
    assert queue.waiting == 1
    server.lose_answer = False
    assert queue.send(at_once=True)
    assert server.taken == [epoch(1), epoch(1)]


FOREIGN = {
    "damaged": (b'{"write": "LogBa', "skipped a damaged file"),
    "empty": (b"", "skipped a damaged file"),
    "foreign": (b'{"method": "end", "arguments": {}}', "skipped a damaged file"),
    "outside": (
        b'{"write": "LogFiles", "run_id": "run", "files": {"../a": {"base64": ""}}}',
        "skipped a damaged file",
    ),
    "wrong types": (
        b'{"write": "LogBatch", "run_id": "run", "metrics": {"loss": "text"}, "step": 1,'
        b' "timestamp": 1, "tags": {}}',
        "the tracking server refused a write",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_cannot_be_sent_does_not_stop_the_others(
    queue: OfflineQueue, server: Server, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    content, sentence = FOREIGN[kind]
    server.answers = False
    for number in (1, 2, 3):
        queue.write(epoch(number))
    path = waiting(queue)[1]
    path.write_bytes(content)
    server.answers = True
    capsys.readouterr()
    assert queue.send(at_once=True)
    assert server.taken == [epoch(1), epoch(3)]
    assert path.with_suffix(".refused").read_bytes() == content
    assert waiting(queue) == []
    told, back = capsys.readouterr().err.splitlines()
    assert told.startswith(f"warning: {sentence}, kept as ")
    assert str(path.with_suffix(".refused")) in told
    assert "back" in back


def test_a_write_that_the_server_refuses_is_kept(
    queue: OfflineQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = False
    queue.write(epoch(1, "deleted"))
    queue.write(epoch(2))
    server.answers = True
    assert queue.send(at_once=True)
    assert server.taken == [epoch(2)]
    assert len(list(queue.folder.glob("*/*.refused"))) == 1
    errors = capsys.readouterr().err
    assert "the run is deleted; token=***" in errors
    assert "and more" not in errors
    with pytest.raises(MlflowException):
        queue.write(epoch(3, "deleted"))


def left_behind(queue: OfflineQueue, owner: str) -> Path:
    """Turn what waits into the backlog of another process."""
    (path,) = queue.folder.glob("*/owner")
    path.write_text(owner)
    return path.parent


@pytest.mark.parametrize("whose", ["dead", "alive", "elsewhere", "damaged"])
def test_what_dead_processes_left_is_sent(
    queue: OfflineQueue,
    server: Server,
    whose: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answers = False
    for number in (1, 2, 3):
        queue.write(epoch(number))
    (path,) = queue.folder.glob("*/owner")
    owners = {
        "dead": dead_owner(),
        "alive": path.read_text(),
        "elsewhere": json.dumps(
            json.loads(dead_owner()) | {"boot": "another", "machine": "another"}
        ),
        "damaged": "{",
    }
    folder = left_behind(queue, owners[whose])
    waiting(queue)[2].write_bytes(b"damaged")
    other = queue_to(server, tmp_path, monkeypatch)
    other.folder = queue.folder
    capsys.readouterr()
    if whose == "dead":
        assert other.send_others() == (0, 3)
    server.answers = True
    assert other.send_others() == ((2, 0) if whose == "dead" else (0, 0))
    assert server.taken == ([epoch(1), epoch(2)] if whose == "dead" else [])
    assert len(list(folder.glob("*.json"))) == (0 if whose == "dead" else 3)
    assert ("owner is damaged" in capsys.readouterr().err) == (whose == "damaged")


def test_a_refusal_that_the_harness_makes_itself_is_one_too(
    queue: OfflineQueue, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = False
    queue.write(CreateRun("key", "deleted experiment", "", "", {}, 1))
    server.answers = True

    def refuse(write: Write) -> str | None:
        raise RunFailed("The MLflow experiment 'deleted experiment' was deleted.")

    monkeypatch.setattr(server, "write", refuse)
    assert queue.send(at_once=True)
    assert len(list(queue.folder.glob("*/*.refused"))) == 1
