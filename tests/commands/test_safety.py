"""No name leads out of the project, and no credential reaches the record or the screen."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, Checkout
from hypothesis import given
from hypothesis import strategies as st

from harness.base.command_line import command_text
from harness.base.errors import BadRequest, RunFailed
from harness.cli import entry
from harness.search import storage
from harness.tracking import store_address
from harness.tracking.messages import SaveArtifacts
from harness.tracking.recorder import MlflowRecorder

HIDDEN = "hidden-word"
STORAGE = f"postgresql://ann:{HIDDEN}@127.0.0.1:1/studies"


def files_outside(folder: Path, *inside: str) -> list[str]:
    """Files of a folder that are in none of these parts of it."""
    return [
        name
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        for name in [str(path.relative_to(folder))]
        if not name.startswith(inside)
    ]


def test_names_are_no_paths(tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path / "a" / "b" / "checkout")
    mine = files_outside(tmp_path)
    away = "../../../away"
    run = checkout.run(
        *("softmax_regression", *QUICK, "--no-figures", "--run-name", away, "--tag", f"a={away}")
    )
    assert run.status == 0, run
    words = ("--n-trials", "1", "--confirm-seeds", "0", "--workers", "1", "--study-name", away)
    study = checkout.command("harness.study", "lr_search", *QUICK, *words)
    assert study.status == 0, study
    assert set(files_outside(tmp_path, "a/b/checkout/mlruns/")) == set(mine)
    with checkout.opened() as client:
        assert client.get_run(run.run_id).info.run_name == away
        found = client.get_experiment_by_name(away)
    assert found
    assert found.artifact_location == f"mlruns/artifacts/{found.experiment_id}"


@pytest.mark.parametrize("name", ["../away.txt", "/tmp/away.txt", "figures/../../away.txt", ".."])
def test_an_artifact_stays_with_its_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(BadRequest, match="would lie outside of the run"):
        MlflowRecorder().send(SaveArtifacts("0" * 32, {name: b"away"}))
    assert list(tmp_path.iterdir()) == []


# ---- credentials ----


def test_a_storage_that_cannot_be_opened_keeps_its_password(tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path / "checkout")
    words = ("--n-trials", "1", "--confirm-seeds", "0", "--storage", STORAGE)
    ended = checkout.command("harness.study", "lr_search", *QUICK, *words)
    assert ended.status == 1
    assert (
        "error: The storage postgresql://***@127.0.0.1:1/studies cannot be opened" in ended.errors
    )
    assert HIDDEN not in ended.output + ended.errors
    assert len(ended.errors.splitlines()) == 1
    for path in (checkout.root / "mlruns").rglob("*"):
        assert not path.is_file() or HIDDEN.encode() not in path.read_bytes()


def test_a_storage_that_fails_later_keeps_its_password() -> None:
    with (
        pytest.raises(RunFailed, match=r"postgresql://\*\*\*@127.0.0.1:1/studies failed") as failed,
        storage.failures_told(STORAGE),
    ):
        raise sqlite3.OperationalError(f"no connection to {STORAGE} --password={HIDDEN}")
    assert HIDDEN not in str(failed.value)


def test_the_command_of_a_study_is_recorded_and_shown_without_its_password() -> None:
    words = [str(ROOT / "harness" / "study.py"), "lr_search"]
    for flag in (["--storage", STORAGE], [f"--storage={STORAGE}"]):
        told = command_text(words + flag)
        assert HIDDEN not in told
        assert "--storage env:HARNESS_STORAGE" in told.replace("=", " ")


@pytest.mark.parametrize(
    "message",
    [
        f"cannot connect to {STORAGE}",
        f"mysql+pymysql://ann:{HIDDEN}@db/x?charset=utf8",
        f"https://{HIDDEN}@example.org",
        f"--storage-password {HIDDEN}",
        f"MLFLOW_TRACKING_TOKEN={HIDDEN}",
        f"postgresql://db/x?user=ann&password={HIDDEN}&sslmode=require",
    ],
)
def test_no_message_shows_a_credential(
    message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert entry.print_error(RunFailed(f"It failed.\n{message}"), 1) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: It failed.\n")
    assert HIDDEN not in shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", message)
    assert HIDDEN not in store_address.described()


@pytest.mark.parametrize("uri", ["ftp://ann:{}@h/x", "http://ann:{}@", "http://ann:{}@h:port/"])
def test_a_tracking_uri_that_is_refused_keeps_its_password(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(HIDDEN))
    with pytest.raises(BadRequest, match="MLFLOW_TRACKING_URI") as refused:
        store_address.check_address()
    assert HIDDEN not in str(refused.value)


@given(st.text())
def test_any_tracking_uri_is_one_or_refused(uri: str) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(BadRequest):
        patch.setattr(store_address, "tracking_uri", lambda: uri)
        store_address.check_address()


@given(st.text() | st.text().map("sqlite:///{}".format) | st.text().map("postgresql://{}".format))
def test_any_storage_url_is_one_or_refused(url: str) -> None:
    with contextlib.suppress(BadRequest):
        storage.storage_url(url)
