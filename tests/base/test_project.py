"""Which folder is the project: the nearest one upwards, or the one that is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from harness.base import project
from harness.base.errors import BadRequest


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of a project at the beginning; at the end it is the checkout again."""
    monkeypatch.delenv(project.VARIABLE, raising=False)
    project.root.cache_clear()
    yield
    monkeypatch.undo()
    project.root.cache_clear()
    assert project.root() == ROOT


def make(folder: Path) -> Path:
    for name in project.FOLDERS:
        (folder / name).mkdir(parents=True)
    return folder.resolve()


def test_it_is_the_nearest_folder_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = make(tmp_path)
    inner = make(tmp_path / "inner")
    (inner / "experiments" / "deep").mkdir()
    for here, expected in (
        (inner / "experiments" / "deep", inner),
        (inner, inner),
        (outer / "studies", outer),
    ):
        project.root.cache_clear()
        monkeypatch.chdir(here)
        assert project.root() == expected
        assert project.mlruns() == expected / "mlruns"


def test_it_stays_the_same_wherever_a_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path / "one"))
    first = project.root()
    monkeypatch.chdir(make(tmp_path / "two"))
    assert project.root() == first


def test_one_of_the_two_folders_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "studies").write_text("a file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="Make one: python -m harness init"):
        project.root()


def test_a_variable_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(project.VARIABLE, "own")
    assert project.root() == folder
    project.root.cache_clear()
    monkeypatch.setenv(project.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(BadRequest, match=r"HARNESS_PROJECT: .*nowhere is no project"):
        project.root()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/own", "x" * 5000, "file"])
def test_a_name_that_no_folder_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(project.VARIABLE, name)
    with pytest.raises(BadRequest, match="is no project"):
        project.root()


def test_a_folder_that_was_deleted_is_in_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(BadRequest, match="There is no project here"):
        project.root()


def test_processes_that_are_started_get_the_same_project_and_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(project.VARIABLE, "own")
    others = {"PYTHONPATH": "others", project.VARIABLE: "own"}
    named = {"PYTHONPATH": "others", project.VARIABLE: str(folder)}
    assert project.environment_for_child(others) == named
    monkeypatch.chdir(ROOT)
    found = {"PYTHONPATH": f"{ROOT}{os.pathsep}others"}
    assert project.environment_for_child(others) == named | found
    project.root.cache_clear()
    monkeypatch.delenv(project.VARIABLE)
    assert project.environment_for_child({}) == {project.VARIABLE: str(ROOT)}
