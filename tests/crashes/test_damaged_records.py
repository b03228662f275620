"""What is foreign, damaged or deleted in a record is named or skipped, and stops nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import Checkout, Recorded

from harness.base.ownership import Owner

Damage = Callable[[Path], object]
"""Damages the records in a folder `mlruns`."""


def sql(text: str, name: str = "mlflow.db") -> Damage:
    def damage(mlruns: Path) -> None:
        with contextlib.closing(sqlite3.connect(mlruns / name)) as connection, connection:
            connection.executescript(text)

    return damage


def tag(name: str, value: str | None) -> Damage:
    """Every run's tag of that name."""
    if value is None:
        return sql(f"DELETE FROM tags WHERE key = 'harness.{name}'")
    quoted = value.replace("'", "''")
    return sql(f"UPDATE tags SET value = '{quoted}' WHERE key = 'harness.{name}'")


def foreign_run(kind: str, **tags: str) -> Damage:
    """Somebody's own MLflow run below a run of the harness."""
    run_id = uuid.uuid4().hex
    ours = f"SELECT run_uuid FROM tags WHERE key = 'harness.kind' AND value = '{kind}' LIMIT 1"
    values = "".join(
        f"INSERT INTO tags (key, value, run_uuid) VALUES ('{name}', '{value}', '{run_id}');"
        for name, value in tags.items()
    )
    return sql(
        f"INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, experiment_id) "
        f"SELECT '{run_id}', 'mine', 'RUNNING', start_time, 'active', experiment_id "
        f"FROM runs WHERE run_uuid IN ({ours});"
        f"INSERT INTO tags (key, value, run_uuid) "
        f"SELECT 'mlflow.parentRunId', run_uuid, '{run_id}' FROM ({ours});{values}"
    )


def file(name: str, content: bytes | str) -> Damage:
    def damage(mlruns: Path) -> None:
        path = mlruns / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def artifacts(mlruns: Path) -> None:
    for path in (mlruns / "artifacts").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff{")


STUDY = "joint_search"
GO_ON = ("harness.study", STUDY, "--dataset", "digits", "--threads", "1", "--workers", "1")
SOME = {
    "study": (*GO_ON, "--num-epochs", "2", "--n-trials", "7", "--confirm-seeds", "2"),
    "compare": ("harness.compare", "--mixed-data"),
    "report": ("harness.report", STUDY, "--out", "page.html"),
    "sync": ("harness.sync",),
}

DEAD_WORK = json.dumps({"owner": str(Owner.current()), "work": {"store": 5}})
DELETED = "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid IN "
OF_KIND = "(SELECT run_uuid FROM tags WHERE key = 'harness.kind' AND value = '{}')"

HARMLESS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "foreign run below a study": (foreign_run("study"), ("study", "report", "compare")),
    "later kind below a study": (
        foreign_run("study", **{"harness.kind": "sweep", "harness.outcome": "paused"}),
        ("study", "report", "compare"),
    ),
    "foreign run below a group": (foreign_run("group"), ("compare",)),
    "owners": (tag("owner", "no JSON"), ("study", "sync")),
    "deep owners": (tag("owner", "[" * 100_000), ("sync",)),
    "no owners": (tag("owner", None), ("study",)),
    "processes": (file("processes/x.json", "["), ("compare",)),
    "deep processes": (file("processes/x.json", "[" * 100_000), ("sync",)),
    "processes of other kinds": (file("processes/x.json", DEAD_WORK), ("compare",)),
    "parameters": (tag("parameters", "[1]"), ("compare", "report")),
    "later outcomes": (tag("outcome", "paused"), ("compare", "report")),
    "sizes": (tag("data.training_size", "many"), ("report",)),
    "commands": (tag("command", "an 'open quote"), ("report", "compare")),
    "metrics": (tag("metrics", '{"accuracy": 5}'), ("compare", "report")),
    "deleted trials": (sql(DELETED + OF_KIND.format("trial")), ("study", "report", "compare")),
    "deleted confirmations": (sql(DELETED + OF_KIND.format("confirm")), ("report", "compare")),
    "foreign trials": (
        sql(
            "INSERT INTO trials (number, study_id, state, datetime_start) "
            "SELECT 99, study_id, 'RUNNING', datetime('now') FROM studies",
            "optuna.db",
        ),
        ("report",),
    ),
    "artifacts": (artifacts, ("report", "compare")),
    "spool": (file("spool/abc/owner", "{"), ("sync",)),
}


def damaged(worked: Recorded, tmp_path: Path, damage: Damage) -> Checkout:
    """A copy of a session of work, with its records damaged."""
    checkout = Checkout(tmp_path / "checkout")
    shutil.copytree(worked[0].root, checkout.root)
    damage(checkout.root / "mlruns")
    return checkout


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_foreign_or_damaged_stops_no_command(
    worked: Recorded, tmp_path: Path, name: str
) -> None:
    damage, commands = HARMLESS[name]
    checkout = damaged(worked, tmp_path, damage)
    for command in commands:
        ended = checkout.command(*SOME[command])
        assert ended.status == 0, (command, ended.errors)
        assert "Traceback" not in ended.errors
        if "processes" in name:
            assert "processes/x.json: it does not say what a process works on" in ended.errors


REFUSED: dict[str, tuple[Damage, tuple[str, ...], int, str]] = {
    "fields": (
        tag("fields", "x"),
        ("harness.verify", "last"),
        2,
        "none that can be read (tag harness.fields)",
    ),
    "later fields": (
        tag("fields", '{"new_field": 3}'),
        ("harness.verify", "last"),
        2,
        "has no field new_field any more",
    ),
    "no declaration": (
        sql("DELETE FROM study_user_attributes", "optuna.db"),
        SOME["report"],
        2,
        "was not created by the harness, or its declaration is damaged",
    ),
    "declarations": (
        sql("UPDATE study_user_attributes SET value_json = '7'", "optuna.db"),
        SOME["study"],
        2,
        "was not created by the harness, or its declaration is damaged",
    ),
    "attributes": (
        sql("UPDATE trial_user_attributes SET value_json = '{'", "optuna.db"),
        SOME["study"],
        1,
        "holds an attribute that is no JSON",
    ),
    "attributes in a report": (
        sql("UPDATE trial_user_attributes SET value_json = '{'", "optuna.db"),
        SOME["report"],
        1,
        "holds an attribute that is no JSON",
    ),
    "deleted study": (
        sql(DELETED + OF_KIND.format("study")),
        SOME["report"],
        2,
        f"the run of the study {STUDY} was deleted",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_without_it_is_refused_in_a_line(
    worked: Recorded, tmp_path: Path, name: str
) -> None:
    damage, command, status, words = REFUSED[name]
    checkout = damaged(worked, tmp_path, damage)
    ended = checkout.command(*command)
    assert ended.status == status, ended.errors
    assert words in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("what", ["the study", "the file"])
def test_a_study_that_is_deleted_while_it_runs_says_so(checkout: Checkout, what: str) -> None:
    """Whoever has a deleted file open can still write to it: nobody would find that again."""
    words = ("init_std_search", "--dataset", "digits", "--threads", "1", "--workers", "1")
    study = checkout.start(
        *("harness.study", *words, "--num-epochs", "20", "--n-trials", "500"),
        stderr=subprocess.STDOUT,
    )
    try:
        assert study.stdout
        while not study.stdout.readline().startswith("[2/500]"):
            assert study.poll() is None
        if what == "the study":
            name = f"sqlite:///{checkout.root}/mlruns/optuna.db"
            optuna.delete_study(study_name="init_std_search", storage=name)
        else:
            for path in (checkout.root / "mlruns").glob("optuna.db*"):
                path.unlink()
        output, _ = study.communicate(timeout=120)
    finally:
        study.kill()
        study.communicate()
    assert study.returncode == 1
    assert "The study was deleted from sqlite:///" in output
    assert "Traceback" not in output
    ended = {run.data.tags["harness.kind"]: run.info.status for run in checkout.runs()}
    assert ended["study"] == "FAILED"
    assert "RUNNING" not in {run.info.status for run in checkout.runs()}
