"""The checklist has what runs have recorded, and says what they have not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base import project
from harness.reporting import checklist
from harness.reporting.checklist import NOTHING, Tags
from harness.reporting.page import Item
from harness.tracking.schema import StoredRun

TAGS: Tags = {
    **{"device": "cuda", "device_name": "some card", "threads": "4", "processor": "some CPU"},
    **{"python": "3.12", "torch": "2.13", "mlflow": "3.17", "optuna": "5.0"},
    **{"git_commit": "a" * 40, "git_state": "clean", "experiment_sha256": "e" * 64},
}


def items_of(*runs: Tags) -> dict[str, Item]:
    return {item.name: item for item in checklist.environment_items(runs)}


def test_what_is_recorded_is_listed_once() -> None:
    items = items_of(TAGS, TAGS)
    assert items["Hardware"] == Item("Hardware", "cuda: some card, 4 threads of some CPU")
    assert items["Versions"].record.startswith("python 3.12, torch 2.13, mlflow 3.17, optuna 5.0\n")
    assert items["Code"] == Item("Code", f"commit {'a' * 40}, no uncommitted changes")
    assert items["Experiment file"].record == f"SHA-256 {'e' * 64}"


def test_what_differs_between_runs_is_all_there() -> None:
    items = items_of(TAGS, {**TAGS, "torch": "2.14", "git_state": "dirty"})
    assert "torch 2.13" in items["Versions"].record
    assert "torch 2.14" in items["Versions"].record
    assert "changes.diff" in items["Code"].record
    assert not items["Code"].fine


def test_what_is_missing_is_open() -> None:
    items = items_of({})
    assert items["Hardware"] == Item("Hardware", NOTHING, fine=False)
    assert items["Code"] == Item("Code", NOTHING, fine=False)
    assert checklist.data_item([]) == Item("Data", NOTHING, fine=False)


def test_data_with_its_digests() -> None:
    parts = [("digits", "training", 1198, "d" * 64), ("digits", "test", None, "e" * 64)]
    assert checklist.data_item(parts * 2).record.splitlines() == [
        f"digits, training: 1,198 examples, SHA-256 {'d' * 64}",
        f"digits, test: SHA-256 {'e' * 64}",
    ]


def run_with(number: int, parent: str | None = None, **tags: str) -> StoredRun:
    known = {f"harness.{name}": value for name, value in tags.items()}
    if parent:
        known["mlflow.parentRunId"] = parent
    return StoredRun(f"{number:032x}", "some", "baseline", 0, None, known)


def test_commands_follow_the_code_that_they_ran_on() -> None:
    clean = run_with(1, git_commit="a" * 40, git_state="clean")
    dirty = run_with(2, "e" * 32, git_commit="b" * 40, git_state="dirty")
    commands = checklist.repeat_commands(
        [(clean, "one"), (clean, "two"), (dirty, "# three"), (dirty, "three"), (clean, "four")]
    )
    store = "${MLFLOW_TRACKING_URI:-sqlite:///mlruns/mlflow.db}"
    assert commands.lines == [
        f"# the uncommitted changes, an artifact of run {'e' * 32}",
        f"MLFLOW_TRACKING_URI={store} mlflow artifacts download --run-id {'e' * 32} "
        "--artifact-path changes.diff --dst-path ../run-eeeeeeee",
        "# REPOSITORY: the address of the code",
        "git clone REPOSITORY ../repeated && cd ../repeated",
        "python -m venv .venv && . .venv/bin/activate",
        f"git checkout --quiet {'a' * 40}",
        "pip install -c constraints.txt -e .",
        *("one", "two"),
        f"git checkout --quiet {'b' * 40}",
        "git apply ../run-eeeeeeee/changes.diff",
        "pip install -c constraints.txt -e .",
        *("# three", "three"),
        "git stash --include-untracked --quiet",
        f"git checkout --quiet {'a' * 40}",
        "pip install -c constraints.txt -e .",
        "four",
    ]


def test_a_project_of_ones_own_installs_the_recorded_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    lines = checklist.repeat_commands([(run_with(1, git_commit="none"), "one")]).lines
    assert lines[-2:] == ["pip install -r ../run-00000000/environment.txt", "one"]
    assert lines[-3].endswith("--artifact-path environment.txt --dst-path ../run-00000000")


def test_code_without_a_repository_has_nothing_to_clone() -> None:
    commands = checklist.repeat_commands([(run_with(1, git_commit="none"), "one")])
    assert commands.lines == ["pip install -c constraints.txt -e .", "one"]


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("run x --data-root /data/x", ["# DATA_ROOT: your own", "run x --data-root DATA_ROOT"]),
        ("run x --data-root=~/x y", ["# DATA_ROOT: your own", "run x --data-root=DATA_ROOT y"]),
        ("run --data-root '/a b'", ["# DATA_ROOT: your own", "run --data-root DATA_ROOT"]),
        ("run --data-root ../x", ["# DATA_ROOT: your own", "run --data-root DATA_ROOT"]),
        ("run --data-root data", ["run --data-root data"]),
        ("python ~/x/analysis.py", ["# PATH: your own", "python PATH"]),
        ("s --storage sqlite:////x.db", ["# STORAGE: your own", "s --storage STORAGE"]),
        ("s --storage sqlite:///x.db", ["s --storage sqlite:///x.db"]),
        ("s --storage postgresql+psycopg://h/x", ["# STORAGE: your own", "s --storage STORAGE"]),
        ("run --tag 'a b=1/2' --lr 0.1", ["run --tag 'a b=1/2' --lr 0.1"]),
        ("# it's", ["# it's"]),
    ],
)
def test_no_command_holds_a_place_of_one_machine(command: str, lines: list[str]) -> None:
    commands = checklist.repeat_commands([(run_with(1), command)]).lines
    assert commands[1:] == lines
