"""The checklist has what runs have recorded, and says what they have not."""

from __future__ import annotations

from harness.reporting import checklist
from harness.reporting.checklist import NOTHING, Tags
from harness.reporting.page import Item

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


def test_commands_follow_a_checkout_of_their_commit() -> None:
    other = {"git_commit": "b" * 40, "git_state": "dirty"}
    commands = checklist.repeat_commands(
        [(TAGS, "one"), (TAGS, "two"), (other, "three"), ({}, "4")]
    )
    assert commands.lines == [
        "pip install -c constraints.txt -e .",
        f"git checkout {'a' * 40}",
        "one",
        "two",
        f"git checkout {'b' * 40}",
        "git apply changes.diff  # an artifact of the (parent) run",
        "three",
        "4",
    ]
