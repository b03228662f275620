"""Command lines: built from their parts, and written so that they can be shared and repeated."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from harness.base.command_line import command_text, repeatable, run_arguments


def test_a_run_is_built_from_its_options() -> None:
    assert run_arguments(
        "baseline",
        {"seed": 0, "lr": 0.5, "num_epochs": 3, "tag": ("a=b", "c=d"), "note": "", "steps": None},
    ) == (
        *("python", "-m", "harness.run", "baseline", "--seed", "0", "--lr", "0.5"),
        *("--num-epochs", "3", "--tag", "a=b", "--tag", "c=d", "--note", "", "--steps", "None"),
    )


@dataclasses.dataclass(frozen=True)
class Switches:
    """Two switches, as an experiment may have them."""

    off: bool = False
    on: bool = True


@given(st.booleans(), st.booleans())
def test_switches_are_read_back_whatever_their_defaults(off: bool, on: bool) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Switches)}
    words = run_arguments("x", {"off": off, "on": on}, defaults)[4:]
    config = (tyro.conf.FlagCreatePairsOff,)
    assert tyro.cli(Switches, args=list(words), config=config) == Switches(off, on)


@pytest.mark.parametrize(
    "options", [{"run_name": "it's a try"}, {"note": 'a "b" $HOME `c`'}, {"tag": ("k=v w",)}]
)
def test_a_shared_command_is_read_back_by_a_shell(options: dict[str, Any]) -> None:
    words = run_arguments("baseline", options)
    assert tuple(shlex.split(command_text(words))) == words


def test_a_command_is_told_from_the_root_and_the_home_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    program = str(ROOT / "harness" / "run.py")
    told = command_text(
        (
            *(program, "baseline", "--data-root", "/home/ann/data", "--run-name", "it's a try"),
            *("--fallback=digits", f"--data-root={ROOT}/data"),
            *("--storage", "sqlite:////home/ann/s"),
            *("--other", "/home/anna/data", "/data/home/ann", "/home/ann/my data"),
        )
    )
    assert shlex.split(told) == [
        *("python", "-m", "harness.run", "baseline", "--data-root", "~/data"),
        *("--run-name", "it's a try", "--fallback=digits", "--data-root=data"),
        *("--storage", "sqlite:///~/s", "--other", "/home/anna/data", "/data/home/ann"),
        "~/my data",
    ]
    # A shell opens a tilde outside of quotes alone.
    assert " ~/data " in told
    assert told.endswith(" ~/'my data'")
    assert command_text(("/elsewhere/harness/__main__.py",)) == "python -m harness"
    assert command_text(()) == ""


@pytest.mark.parametrize("words", [("--data-root", "sets"), ("--data_root=sets",)])
def test_a_command_keeps_its_meaning_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    typed = ("run.py", "baseline", *words, "--run-name", "sets")
    monkeypatch.chdir(ROOT)
    assert repeatable(typed) == typed
    monkeypatch.chdir(ROOT / "tests" / "base")
    first = words[-1].removesuffix("sets")
    told = ("run.py", "baseline", *words[:-1], f"{first}tests/base/sets", "--run-name", "sets")
    assert command_text(repeatable(typed)) == command_text(told)
    assert command_text(repeatable(typed), ROOT / "tests" / "base") == command_text(typed)


@pytest.mark.parametrize("home", ["/", ""])
def test_a_machine_without_a_home_folder_has_commands_too(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    assert command_text(("x/harness/run.py", "/data/x")) == "python -m harness.run /data/x"


def test_a_secret_is_masked() -> None:
    options = {"storage": "postgresql://ann:pw@db.example/x", "data_root": Path("/data")}
    told = command_text(run_arguments("baseline", options))
    assert told == (
        "python -m harness.run baseline --storage env:HARNESS_STORAGE --data-root /data"
    )
