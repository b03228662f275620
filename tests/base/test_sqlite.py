"""The look at a database: cheap, clear, and nothing is changed by it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from harness.base import sqlite
from harness.base.errors import RunFailed


def database(path: Path, *tables: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (name TEXT)")
    return path


def check(path: Path) -> None:
    sqlite.check_usable(path, "MLflow 3", "experiments")


def test_a_missing_and_an_empty_file_and_the_librarys_own_pass(tmp_path: Path) -> None:
    check(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    check(tmp_path / "empty.db")
    check(database(tmp_path / "own.db", "runs", "experiments"))
    check(database(tmp_path / "without_tables.db"))


@pytest.mark.parametrize("write_ahead", [False, True])
def test_a_look_changes_nothing_and_leaves_no_lock(tmp_path: Path, write_ahead: bool) -> None:
    path = database(tmp_path / "own.db", "experiments")
    with closing(sqlite3.connect(path)) as other:
        if write_ahead:
            other.execute("PRAGMA journal_mode=WAL")
        before = path.read_bytes()
        check(path)
        assert path.read_bytes() == before
        with other:
            other.execute("INSERT INTO experiments VALUES ('first')")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing" * 999, "the database is damaged (file is not a database)"),
        (b"SQLite format 3\0" + b"\xa5" * 9000, "the database is damaged ("),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(RunFailed) as refused:
        check(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert path.read_bytes() == content


def test_a_folder_and_another_librarys_database_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="this is a folder, not a database"):
        check(tmp_path)
    path = database(tmp_path / "recipes.db", "recipes")
    with pytest.raises(RunFailed, match=r"not a database of MLflow 3 \(its tables: recipes\)"):
        check(path)


def test_a_locked_database_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "own.db", "experiments")
    monkeypatch.setattr(sqlite, "PATIENT_SECONDS", 0.1)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with (
            pytest.warns(UserWarning, match="waiting up to 0.2 s"),
            pytest.raises(RunFailed, match=r"locked by another program for more than 0\.2 s"),
        ):
            check(path)
        assert time.monotonic() - started >= 0.2
        holder.execute("ROLLBACK")
    check(path)


def test_a_look_costs_the_same_whatever_the_database_holds(tmp_path: Path) -> None:
    """Only the list of tables is read, not the pages: damage further back stays unseen here."""
    path = database(tmp_path / "own.db", "experiments")
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = [("x" * 4000,) for _ in range(100)]
        connection.executemany("INSERT INTO experiments VALUES (?)", rows)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xa5" * (len(content) // 2))
    check(path)
