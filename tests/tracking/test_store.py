"""The store: opened, created, and asked which runs are unfinished, here and through MLflow."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from records import dead_owner, record, use_store

from harness.base.errors import RunFailed
from harness.base.ownership import Owner
from harness.tracking.messages import EndRun, OpenStore, StartRun
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.store import RunState, Store


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowRecorder:
    use_store(tmp_path / "store", monkeypatch)
    return MlflowRecorder()


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


def test_a_new_store_may_be_read_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    Store()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_a_store_reads_the_rows_of_no_run(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it costs must not depend on how much was recorded."""
    seen: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", traced)  # which SQLAlchemy calls
    Store()
    assert seen
    tables = ("metrics", "latest_metrics", "params", "tags", "runs")
    told = [text for text in seen if any(f" {table}" in text for table in tables)]
    assert told == []
    assert not [text for text in seen if "check" in text.lower()]


def test_the_state_of_runs_is_read_as_mlflow_tells_it(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = recorder.send(StartRun(record(kind="group")))
    children = [
        recorder.send(StartRun(record(parent=group, tags={"owner": owner})))
        for owner in (str(Owner.current()), dead_owner(), dead_owner())
    ]
    alone = recorder.send(StartRun(record()))
    recorder.send(EndRun(children[2], "pruned"))
    recorder.send(EndRun(alone, "completed"))
    store = recorder.store
    deleted = recorder.send(StartRun(record(parent=group)))
    store.client.delete_run(deleted)

    def states() -> list[set[RunState]]:
        return [set(store.running()), set(store.children(group))]

    directly = states()
    assert {state.run_id for state in directly[0]} == {group, children[0], children[1]}
    assert {state.run_id: state.outcome for state in directly[1]} == {
        children[0]: "running",
        children[1]: "running",
        children[2]: "pruned",
    }
    assert {state.run_id for state in directly[0] if store.is_left_open(state)} == {children[1]}
    monkeypatch.setattr(store, "database", None)
    assert states() == directly


def test_a_run_that_mlflow_alone_wrote_is_left_alone(recorder: MlflowRecorder) -> None:
    client = recorder.store.client
    run_id = client.create_run("0").info.run_id
    recorder.send(OpenStore())
    (state,) = recorder.store.running()
    assert state == RunState(run_id, True, "", "", state.last_seen)
    assert state.last_seen == pytest.approx(time.time(), abs=60)


def test_a_store_of_another_version_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = use_store(tmp_path, monkeypatch)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        (expected,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = path.read_bytes()
    with pytest.raises(RunFailed) as refused:
        Store()
    message = str(refused.value)
    assert message.startswith(f"{path}: written by another version of MLflow (its tables have")
    assert "version ffffffffffff, MLflow 3" in message
    assert f"expects {expected})" in message
    assert "\n" not in message
    assert path.read_bytes() == before


def test_a_store_that_is_damaged_inside_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page is whole, so that only MLflow finds out."""
    path = use_store(tmp_path, monkeypatch)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:4096] + b"\xa5" * (half - 4096) + content[half:])
    before = path.read_bytes()
    with pytest.raises(RunFailed) as refused:
        Store()
    assert str(refused.value).startswith(f"{path}: the database is damaged (")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(path))
    assert path.read_bytes() == before
