"""Names in a store are somebody's choice: no command prints one that does more than show itself."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from conftest import Checkout
from mlflow import MlflowClient
from rich.console import Console

from harness import compare
from harness.analysis import table
from harness.analysis.comparison import comparisons
from harness.analysis.query import Query
from harness.base.errors import BadRequest
from harness.tracking.reader import open_reader

EVIL = "=1+1|x\n\x1b[2J\u202e:bug:[red]<b>\x9b"
SHOWN = r"=1+1|x\n\x1b[2J\u202e:bug:[red]<b>\x9b"


@pytest.fixture(scope="module")
def evil_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store in which everything that can have a name has this one."""
    address = f"sqlite:///{tmp_path_factory.mktemp('evil')}/mlflow.db"
    client = MlflowClient(address)
    experiment = client.create_experiment(EVIL)
    for number in range(2):
        tags = {f"harness.{name}": EVIL for name in ("device_name", "git_commit", "dataset")}
        run = client.create_run(experiment, tags={**tags, "harness.kind": "run"}, run_name=EVIL)
        client.log_param(run.info.run_id, "word", f"{EVIL}{number}")
        client.set_terminated(run.info.run_id)
    return address


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("form", [[], ["--markdown"], ["--columns", "name,word,git_commit"]])
def test_no_table_prints_a_name_raw(
    evil_store: str,
    form: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", evil_store)
    assert compare.main(form) == 0
    output = capsys.readouterr().out
    assert is_harmless(output)
    assert r"\x1b" in output
    assert "\nx" not in output
    if form == ["--markdown"]:
        assert r"=1+1\|x\\n\\x1b\[2J\\u202e:bug:\[red]\<b>\\x9b0" in output


def test_a_terminal_shows_a_name_and_does_nothing_else(
    evil_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", evil_store)
    (comparison,) = comparisons(Query(), open_reader())
    screen = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    table.show(comparison.columns([]), screen)
    output = screen.file.getvalue()  # type: ignore[attr-defined]
    assert SHOWN in output
    assert is_harmless(output)


def test_files_hold_no_name_that_computes(
    evil_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", evil_store)
    assert compare.main(["--csv", str(tmp_path / "x.csv"), "--json", str(tmp_path / "x.json")]) == 0
    first, *_ = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text()))
    assert first["name"] == f"'{SHOWN}"
    assert first["params.word"].startswith(f"'{SHOWN}")
    assert is_harmless((tmp_path / "x.csv").read_text())
    # JSON has escapes of its own, and keeps values as they were recorded.
    assert json.loads((tmp_path / "x.json").read_text())[0]["params.word"].startswith(EVIL)
    assert is_harmless((tmp_path / "x.json").read_text())


def test_an_error_names_a_name_harmlessly(evil_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", evil_store)
    with pytest.raises(BadRequest) as raised:
        compare.main(["--experiment", "baselin"])
    assert SHOWN in str(raised.value)


def test_a_message_prints_no_control_character(checkout: Checkout) -> None:
    output = checkout.command("harness.compare", "\x1b[2Jx")
    assert output.status == 2
    assert "\x1b" not in output.errors
