"""Every flag is explained, has one name, and a wrong command line is refused in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest
from conftest import ROOT
from tyro.conf import Positional, UseAppendAction, arg

from experiments.baseline import Baseline
from harness.base import fields
from harness.base.errors import BadRequest
from harness.base.fields import Count
from harness.cli import flags
from harness.cli.bench_flags import BenchSettings
from harness.cli.report_flags import ReportSettings
from harness.cli.run_flags import RunSettings
from harness.cli.study_flags import StudySettings
from harness.cli.ui_flags import UiSettings
from harness.cli.verify_flags import VerifySettings

ALL = (RunSettings, StudySettings, ReportSettings, VerifySettings, UiSettings, BenchSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """Some settings."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A name."""
    count: Annotated[int, Count] = 1
    """A count."""
    scale: float = 1.0
    """A scale."""
    limit: int | None = None
    """A limit."""
    folder: Path | None = None
    """A folder."""
    loud: bool = False
    """A switch."""
    tag: UseAppendAction[tuple[str, ...]] = ()
    """A text."""

    def __post_init__(self) -> None:
        fields.check_all(self)


def parse(*words: str) -> Some:
    return flags.parse_settings(Some, words, "program", "description")


def test_values_are_parsed_by_their_types() -> None:
    words = ("x", "--count", "3", "--scale=0.5", "--folder", "a", "--tag", "b", "--tag", "c")
    assert parse(*words, "--loud") == Some(
        name="x", count=3, scale=0.5, folder=Path("a"), tag=("b", "c"), loud=True
    )
    assert parse("--count", "3", "x").name == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Missing: NAME.\nusage: program NAME [--flag value ...]\nAll flags: program --help"),
        ("--loud", "Missing: NAME.\nusage: program NAME [--flag value ...]\nAll flags: "),
        ("x --coun 3", "There is no flag --coun. Did you mean --count"),
        ("x --zzz", "There is no flag --zzz. All flags: program --help"),
        ("x --hel", "There is no flag --hel. All flags: program --help"),
        ("x --count 1 --count 2", "--count is given 2 times; give it once."),
        ("x --count", "--count: the value is missing.\nAll flags: program --help"),
        ("x --count 1.5", "--count: '1.5' is not a whole number.\nAll flags: program --help"),
        ("x --scale wide", "--scale: 'wide' is not a number.\nAll flags: program --help"),
        ("x --limit y", "--limit: 'y' is not a whole number.\nAll flags: program --help"),
        ("x --count 0", "count: 0 is not allowed, it must be at least 1."),
        ("x y z", "There is no flag or argument y, z.\nAll flags: program --help"),
        ("x --folder a\0b", r"folder: 'a\x00b' holds a null byte."),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words: str, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(*words.split(" ")) if words else parse()
    assert str(refused.value).startswith(message)


def test_the_fields_of_an_experiment_stand_beside_the_settings() -> None:
    words = ["--lr", "0.5", "--repeats", "2"]
    experiment, settings = flags.parse(Baseline, RunSettings, words, "program", "description")
    assert experiment == Baseline(lr=0.5)
    assert settings.repeats == 2


def test_an_experiment_with_values_gives_the_defaults() -> None:
    experiment, _ = flags.parse(
        Baseline(lr=0.3, batch_size=8), RunSettings, ["--lr", "0.5"], "program", "description"
    )
    assert experiment == Baseline(lr=0.5, batch_size=8)


@pytest.mark.parametrize("settings_class", ALL)
def test_the_help_explains_every_flag_and_its_default(
    settings_class: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        flags.parse_settings(settings_class, ["--help"], "program", "description")
    assert ended.value.code == 0
    printed = re.sub(r"\x1b\[[0-9;]*m|[│╭╰╮╯─]|--+(?= *$)", "", capsys.readouterr().out, flags=re.M)
    lines = [line.strip() for line in printed.splitlines()]
    starts = [i for i, line in enumerate(lines) if re.match(r"--\w|NAME|RUN|-h", line)]
    ends = [*starts[1:], len(lines)]
    by_flag = {
        lines[start].split()[0]: " ".join(lines[start:end])
        for start, end in zip(starts, ends, strict=True)
    }
    positional = {"name": "NAME", "run_id": "RUN"}
    for field in dataclasses.fields(settings_class):
        flag = positional.get(field.name, f"--{field.name.replace('_', '-')}")
        explained = re.search(
            r"\S+ +(\w+ |\S+=\S+ |\{.*?\} )? *([A-Z]|auto).*\((default: .+|required|repeatable)\)",
            by_flag[flag],
        )
        assert explained, by_flag[flag]
    boxes = " ".join(lines)
    assert "{None}" not in boxes
    assert "(default: None)" not in boxes


def test_a_flag_of_several_commands_has_one_type_and_one_default() -> None:
    seen: dict[str, set[str]] = {}
    for settings_class in (RunSettings, StudySettings, BenchSettings, UiSettings):
        hints = typing.get_type_hints(settings_class)
        for field in dataclasses.fields(settings_class):
            if (settings_class, field.name) != (StudySettings, "n_trials"):
                seen.setdefault(field.name, set()).add(f"{hints[field.name]} {field.default}")
    assert {name: types for name, types in seen.items() if len(types) > 1} == {}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (("a",), "tag: expected key=value, got 'a'"),
        (("=b",), "tag: expected key=value, got '=b'"),
        (("harness.kind=run",), "keys that begin with mlflow. or harness. are reserved"),
        (("a=1", "a=2"), "tag: the key a is given twice"),
        (("a/b=1",), "tag: a key is at most 250"),
        (("a=\n",), "control character"),
    ],
)
def test_a_tag_has_a_key_of_the_users_own(tags: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        RunSettings(tag=tags)
    assert message in str(refused.value)


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_a_message_does_not_depend_on_what_the_terminal_can_draw(encoding: str) -> None:
    for words, message in (
        (
            ["verify"],
            "error: Missing: RUN.\nusage: python -m harness.verify RUN [--flag value ...]\n",
        ),
        (["bench", "--rounds", "x"], "error: --rounds: 'x' is not a whole number.\n"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", f"harness.{words[0]}", *words[1:]],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert ended.stderr == f"{message}All flags: python -m harness.{words[0]} --help\n"
