"""Where paths lead: from the current folder, from home, and in projects with unusual names."""

from __future__ import annotations

import sys

import pytest
from conftest import QUICK, Checkout

RUN = ("harness.run", "softmax_regression", *QUICK, "--no-figures")


def test_relative_paths_start_in_the_current_folder(checkout: Checkout) -> None:
    folder = checkout.root / "below"
    folder.mkdir()
    store = {"MLFLOW_TRACKING_URI": "sqlite:///own.db"}
    assert checkout.command(*RUN, folder=folder, changes=store).status == 0
    assert (folder / "own.db").is_file()
    assert not checkout.store.exists()
    shown = checkout.command("harness.compare", "--csv", "own.csv", folder=folder, changes=store)
    assert shown.status == 0, shown.errors
    assert (folder / "own.csv").is_file()
    # The same store by its whole path, from another folder: nothing is lost.
    whole = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'own.db'}"}
    assert checkout.command("harness.verify", "last", changes=whole).status == 0
    study = ("harness.study", "lr_search", *QUICK, "--n-trials", "1", "--confirm-seeds", "0")
    ended = checkout.command(*study, "--storage", "sqlite:///study.db", folder=folder)
    assert ended.status == 0, ended.errors
    assert (folder / "study.db").is_file()


def test_home_is_expanded_where_a_shell_does_not(checkout: Checkout) -> None:
    home = checkout.root / "home"
    home.mkdir()
    changes = {"HOME": str(home), "USERPROFILE": str(home)}
    store = {"MLFLOW_TRACKING_URI": "sqlite:///~/own.db"}
    assert checkout.command(*RUN, changes=changes | store).status == 0
    assert (home / "own.db").is_file()
    shown = checkout.command("harness.compare", "--csv=~/own.csv", changes=changes | store)
    assert shown.status == 0, shown.errors
    assert (home / "own.csv").is_file()
    assert not (checkout.root / "~").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names")
@pytest.mark.parametrize("name", ["what?", "a%41b", "a%20b", "50%", "x?y=%3F#z", "it's 1 & 2"])
def test_a_project_may_have_an_unusual_name(
    checkout: Checkout, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Checkout(checkout.root.rename(checkout.root.with_name(name)))
    before = set(moved.root.parent.iterdir())
    ended = moved.command(*RUN)
    assert (ended.status, ended.errors) == (0, "")
    assert moved.store.is_file()
    assert moved.command("harness.verify", ended.run_id).status == 0
    study = ("harness.study", "lr_search", *QUICK, "--n-trials", "1", "--confirm-seeds", "0")
    assert moved.command(*study).status == 0
    assert (moved.root / "mlruns" / "optuna.db").is_file()
    assert set(moved.root.parent.iterdir()) == before
