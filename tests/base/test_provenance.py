"""Where a run comes from: the commit and the changes since."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import GIT, Checkout

from harness.base import project, provenance

needs_git = pytest.mark.skipif(not GIT, reason="there is no git")


@pytest.fixture
def repository(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the project under git, for this process to look at as its own."""
    checkout.git("init", "--quiet")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "All of it")
    monkeypatch.setattr(project, "root", lambda: checkout.root)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return checkout


@needs_git
def test_the_changes_are_a_patch_that_makes_the_files_again(
    repository: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = tmp_path / "clean"
    repository.git("clone", "--quiet", str(repository.root), str(clean))
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[color]\nui = always\n[diff]\nexternal = true\nnoprefix = true\n"
        "[status]\nshowUntrackedFiles = no\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (repository.root / "new").mkdir()
    (repository.root / "new" / "Größe.txt").write_bytes("Größe\r\nno end of line".encode())
    # Untracked files are all that git is told not to show.
    assert provenance.source().changes
    (repository.root / "pyproject.toml").unlink()
    with (repository.root / "harness" / "run.py").open("a") as file:
        file.write("# changed\n")
    index = (repository.root / ".git" / "index").read_bytes()
    (tmp_path / "changes.diff").write_bytes(provenance.source().changes.encode())
    assert (repository.root / ".git" / "index").read_bytes() == index
    command = ["git", "apply", str(tmp_path / "changes.diff")]
    subprocess.run(command, cwd=clean, check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": ""})
    names = repository.git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, names.split("\0")):
        changed, made = repository.root / name, clean / name
        assert changed.exists() == made.exists(), name
        assert not changed.exists() or changed.read_bytes() == made.read_bytes(), name
    assert (clean / "new" / "Größe.txt").exists()


@needs_git
def test_a_clean_checkout_has_no_changes(repository: Checkout) -> None:
    source = provenance.source()
    assert source == provenance.SourceState(repository.git("rev-parse", "HEAD").strip(), "")


@needs_git
def test_what_lies_beside_the_project_in_a_larger_checkout_is_left_out(
    repository: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = repository.root / "experiments"
    monkeypatch.setattr(project, "root", lambda: own)
    (repository.root / "letters.txt").write_text("private")
    (repository.root / "new.py").write_text("")
    with (repository.root / "harness" / "run.py").open("a") as file:
        file.write("# changed\n")
    clean = provenance.source()
    assert (bool(clean.commit), clean.changes) == (True, "")
    assert provenance.files_changed_since(clean.commit) == []
    with (own / "baseline.py").open("a") as file:
        file.write("# changed\n")
    (own / "own.py").write_text("VALUE = 3\n")
    changes = provenance.source().changes
    names = [line for line in changes.splitlines() if line.startswith("+++ ")]
    assert names == ["+++ b/baseline.py", "+++ b/own.py"]
    assert provenance.files_changed_since(clean.commit) == ["baseline.py", "own.py"]


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.source() == provenance.SourceState("", "")
    monkeypatch.setenv("PATH", "")
    assert provenance.source() == provenance.SourceState("", "")
