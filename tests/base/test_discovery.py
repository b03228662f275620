"""Experiments and studies are listed without being run, and found or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base import discovery, project
from harness.base.errors import BadRequest

MARK = "raise SystemExit('a list runs no file')\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three experiments, and other things in their folder."""
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    folder = tmp_path / "some_experiments"
    folder.mkdir()
    (folder / "good.py").write_text('"""First line.\n\nSecond."""\nVALUE = 3\n')
    (folder / "failing.py").write_text(f'"""It fails."""\n{MARK}')
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "_private.py").touch()
    (folder / "not-a-name.py").touch()
    (folder / "notes.txt").touch()
    (folder / "folder.py").mkdir()
    return folder


def test_names_are_those_of_files_that_can_be_imported() -> None:
    assert discovery.names("some_experiments") == ["broken", "failing", "good"]
    assert discovery.names("no_such_folder") == []


def test_a_summary_is_the_first_line_and_runs_nothing(root: Path) -> None:
    assert discovery.first_line(root / "good.py") == "First line."
    assert discovery.first_line(root / "failing.py") == "It fails."
    assert discovery.first_line(root / "broken.py") == "(cannot be read: SyntaxError)"
    assert discovery.first_line(root / "folder.py") == "(cannot be read: IsADirectoryError)"
    assert discovery.first_line(root / "_private.py") == ""


def test_a_file_is_found_or_refused_without_being_run(root: Path) -> None:
    assert discovery.find("some_experiments", "failing") == root / "failing.py"
    with pytest.raises(BadRequest, match=r"no some_experiment 'god' in .* Did you mean good\?"):
        discovery.find("some_experiments", "god")
    with pytest.raises(BadRequest, match=r"broken\.py cannot be imported: .*\(line 1\)"):
        discovery.find("some_experiments", "broken")


def test_the_project_comes_before_a_package_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "own_experiments", tmp_path / "other" / "own_experiments"):
        folder.mkdir(parents=True)
        (folder / "mine.py").write_text(f"PLACE = {str(folder)!r}\n")
    (tmp_path / "other" / "own_experiments" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "other")
    monkeypatch.setattr(project, "FOLDERS", ("own_experiments",))
    found = discovery.load_module("own_experiments", "mine").PLACE
    assert found == str(tmp_path / "own_experiments")


def test_a_module_is_imported_or_its_failure_told_in_one_line() -> None:
    assert discovery.load_module("some_experiments", "good").VALUE == 3
    with pytest.raises(BadRequest) as refused:
        discovery.load_module("some_experiments", "failing")
    assert str(refused.value) == (
        "some_experiments/failing.py cannot be imported: SystemExit: a list runs no file"
    )
