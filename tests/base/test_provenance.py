"""Where a run comes from: the commit and the changes since, this project's alone, no secrets."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import GIT, Checkout

from harness.base import project, provenance
from harness.base.provenance import SourceState, source

pytestmark = pytest.mark.skipif(not GIT, reason="there is no git")


@pytest.fixture
def repository(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Checkout:
    """A copy of the project under git, for this process to look at as its own."""
    checkout.git("init", "--quiet")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "All of it")
    monkeypatch.setattr(project, "root", lambda: checkout.root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return checkout


def appended(path: Path, text: str = "# changed\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def patched(state: SourceState) -> list[str]:
    """The files that a patch makes or changes."""
    return [
        line.removeprefix("+++ b/")
        for line in state.patch.decode(errors="replace").splitlines()
        if line.startswith("+++ b/")
    ]


def test_the_changes_are_a_patch_that_makes_the_files_again(
    repository: Checkout, tmp_path: Path
) -> None:
    clean = tmp_path / "clean"
    (repository.root / "picture.bin").write_bytes(bytes(range(256)) * 9)
    (repository.root / "latin.txt").write_bytes("Größe\r\nsince 1998\r\n".encode("latin-1"))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Two more")
    repository.git("clone", "--quiet", str(repository.root), str(clean))
    # The settings of a user, which a patch must not depend on.
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[color]\nui = always\n[diff]\nexternal = true\nnoprefix = true\nrenames = copies\n"
        "[status]\nshowUntrackedFiles = no\n[core]\nquotePath = true\n"
    )
    (repository.root / "picture.bin").write_bytes(bytes(range(255, -1, -1)) * 7)
    (repository.root / "latin.txt").write_bytes("Größe\r\nsince 1999, no end".encode("latin-1"))
    appended(repository.root / "experiments" / "größe der welt.py", "GRÖSSE = 3\n")
    (repository.root / "experiments" / "lenet.py").unlink()
    appended(repository.root / "harness" / "run.py")
    index = (repository.root / ".git" / "index").read_bytes()
    state = source()
    assert (repository.root / ".git" / "index").read_bytes() == index
    assert (state.state, state.reason, state.left_out) == ("dirty", "", {})
    (tmp_path / "changes.diff").write_bytes(state.patch)
    (home / ".gitconfig").unlink()
    subprocess.run(["git", "apply", str(tmp_path / "changes.diff")], cwd=clean, check=True)
    names = repository.git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, names.split("\0")):
        changed, made = repository.root / name, clean / name
        assert changed.exists() == made.exists(), name
        assert not changed.exists() or changed.read_bytes() == made.read_bytes(), name
    assert state.files["experiments/lenet.py"] == "deleted"
    run = (repository.root / "harness" / "run.py").read_bytes()
    assert state.files["harness/run.py"] == hashlib.sha256(run).hexdigest()


def test_a_clean_checkout_has_no_changes(repository: Checkout) -> None:
    commit = repository.git("rev-parse", "HEAD").strip()
    appended(repository.root / "mlruns" / "mlflow.db", "what is recorded is no change")
    assert source() == SourceState(commit, "clean")
    assert source().name == commit[:8]
    assert source().sentence() == ""


def test_new_files_that_are_no_sources_are_named_and_not_kept(repository: Checkout) -> None:
    secrets = {
        ".env": "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\nDB_PASS=hunter2secret\n",
        "id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n",
        "patients.csv": "name,diagnosis\nDoe,healthy\n",
        "experiments/patients.csv": "name,diagnosis\nDoe,healthy\n",
        "notebook.ipynb": "x" * 1_900_000,
    }
    for name, text in secrets.items():
        appended(repository.root / name, text)
    appended(repository.root / "experiments" / "baseline.py", "# the change that matters\n")
    appended(repository.root / "experiments" / "own.py", "VALUE = 3\n")
    state = source()
    assert patched(state) == ["experiments/baseline.py", "experiments/own.py"]
    assert set(state.others) == set(secrets)
    for word in (b"hunter2", b"BEGIN", b"AKIA", b"Doe", b"xxx"):
        assert word not in state.patch
        assert word not in state.summary().encode()


@pytest.mark.parametrize("place", ["tracked", "new", "deleted line"])
def test_a_file_that_holds_a_secret_is_left_out_as_a_whole(
    repository: Checkout, place: str
) -> None:
    secret = 'token = "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB"\n'
    path = "experiments/own.py" if place == "new" else "experiments/baseline.py"
    file = appended(repository.root / path, secret)
    if place == "deleted line":
        repository.git("add", "--all")
        repository.git("commit", "--quiet", "--message", "By mistake")
        file.write_text(file.read_text().replace(secret, ""))
    appended(repository.root / "experiments" / "lenet.py")
    state = source()
    assert patched(state) == ["experiments/lenet.py"]
    assert state.left_out == {path: "it looks as if it held a token of GitHub"}
    assert state.files[path] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{path} is not in the record: it looks as if it held" in state.sentence()


def test_a_hooks_variables_lead_nowhere_else(
    repository: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=other, check=True)
    appended(repository.root / "experiments" / "baseline.py")
    expected = source()
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / "index"),
        "GIT_PREFIX": "experiments/",
        "GIT_EXTERNAL_DIFF": "true",
    }.items():
        monkeypatch.setenv(name, value)
    assert source() == expected
    assert expected.state == "dirty"


def test_what_lies_beside_the_project_in_a_larger_checkout_is_left_out(
    repository: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = repository.root / "experiments"
    monkeypatch.setattr(project, "root", lambda: own)
    (repository.root / "letters.txt").write_text("private")
    (repository.root / "new.py").write_text("")
    appended(repository.root / "harness" / "run.py")
    clean = source()
    assert clean == SourceState(clean.commit, "clean")
    assert len(clean.commit) == 40
    assert provenance.files_changed_since(clean.commit, {}) == []
    appended(own / "baseline.py")
    appended(own / "studies" / "own.py")
    dirty = source()
    assert sorted(patched(dirty)) == ["baseline.py", "studies/own.py"]
    assert provenance.files_changed_since(clean.commit, {}) == ["baseline.py", "studies/own.py"]
    assert provenance.files_changed_since(clean.commit, dirty.files) == []


def test_a_project_that_is_not_part_of_the_repository_around_it_has_no_commit(
    repository: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = repository.root / "project"
    appended(own / "experiments" / "own.py")
    monkeypatch.setattr(project, "root", lambda: own)
    assert source() == SourceState(reason="the project is in no git repository")


def test_modules_that_a_run_imports_are_sources(
    repository: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended(repository.root / "layers.py", "WIDTH = 3\n")
    appended(repository.root / "scratch.py", "WIDTH = 4\n")
    assert patched(source()) == []
    assert patched(source(["layers.py"])) == ["layers.py"]
    monkeypatch.syspath_prepend(repository.root)
    module = "layers"
    importlib.import_module(module)
    assert "layers.py" in provenance.imported_files()
    assert "scratch.py" not in provenance.imported_files()
    del sys.modules[module]


def test_other_changes_never_push_out_sources(repository: Checkout) -> None:
    table = appended(repository.root / "a_table.csv", "0\n")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "A table")
    appended(table, "".join(f"{i}\n" for i in range(300_000)))
    appended(repository.root / "pyproject.toml")
    long = "".join(f"VALUE_{i} = {i}\n" for i in range(60_000))
    appended(repository.root / "studies" / "long.py", long)
    state = source()
    assert patched(state) == ["studies/long.py", "pyproject.toml"]
    assert list(state.left_out) == ["a_table.csv"]
    assert state.files["a_table.csv"] == hashlib.sha256(table.read_bytes()).hexdigest()


def broken_git(said: str, status: int = 128, only: str = "") -> Callable[[Path], None]:
    """Puts a git that fails, always or in one of its commands, before the real one."""

    def put(folder: Path) -> None:
        program = folder / "git"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *"{only}"*) echo "{said}" >&2; exit {status};; esac\n'
            f'exec {GIT} "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return put


@pytest.mark.parametrize(
    ("broken", "reason", "has_commit"),
    [
        (
            broken_git("fatal: detected dubious ownership in repository at '/x'"),
            "detected dubious ownership in repository at '/x'",
            False,
        ),
        (broken_git("fatal: bad object", only=" diff "), "bad object", True),
        (broken_git("error: insufficient permission", 1, " add "), "error: insufficient", True),
        (broken_git("", 3, " status "), "status 3", True),
    ],
)
def test_git_that_fails_leaves_the_state_unknown_with_its_reason(
    repository: Checkout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[Path], None],
    reason: str,
    has_commit: bool,
) -> None:
    appended(repository.root / "experiments" / "own.py")
    broken(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    state = source()
    assert state.state == "unknown"
    assert reason in state.reason
    assert bool(state.commit) == has_commit
    assert "what has changed is unknown: " in state.sentence()


def test_git_that_takes_too_long_leaves_the_state_unknown(
    repository: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_git("")(tmp_path)
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 100\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "SECONDS", 0.2)
    assert source().reason == "git ls-files took more than 0.2 s"


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    assert source() == SourceState(reason="the project is in no git repository")
    assert source().name == "no commit"
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    appended(tmp_path / "experiments" / "own.py")
    assert source().state == "unknown"
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    assert source() == SourceState(reason="there is no commit yet")
    monkeypatch.setenv("PATH", "")
    assert source() == SourceState(reason="git cannot be run (No such file or directory)")


def test_files_are_compared_with_what_a_run_has_seen(repository: Checkout) -> None:
    own = appended(repository.root / "experiments" / "own.py", "VALUE = 1\n")
    baseline = appended(repository.root / "experiments" / "baseline.py")
    seen = source()
    commit = seen.commit

    def changed() -> list[str]:
        return provenance.files_changed_since(commit, seen.files)

    assert changed() == []
    appended(own, "VALUE = 2\n")
    assert changed() == ["experiments/own.py"]
    own.write_text("VALUE = 1\n")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "What had been changed")
    assert changed() == []
    repository.git("checkout", "--quiet", commit)
    assert changed() == ["experiments/baseline.py", "experiments/own.py"]
    appended(baseline)
    assert changed() == ["experiments/own.py"]
    with pytest.raises(ValueError, match=r"bad object|unknown revision|bad revision"):
        provenance.files_changed_since("0" * 40, {})


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {
                "url": "https://ann:hunter2@git.example/tools.git",
                "vcs_info": {"vcs": "git", "commit_id": "4f1c" * 10},
            },
            f"tools @ git+https://***@git.example/tools.git@{'4f1c' * 10}",
        ),
        (
            {"url": "https://x.example/tools-1.0.tar.gz", "archive_info": {"hashes": {"a": "1"}}},
            "tools @ tools-1.0.tar.gz#a=1",
        ),
        ({"url": "nothing"}, "tools==1.0"),
        ("not a table", "tools==1.0"),
    ],
)
def test_packages_from_elsewhere_name_their_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: Any, expected: str
) -> None:
    made_package(tmp_path, monkeypatch, json.dumps(origin))
    assert provenance.environment().splitlines() == [expected]


def test_a_package_from_a_folder_has_its_commit(
    repository: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = {"url": repository.root.as_uri(), "dir_info": {"editable": True}}
    made_package(tmp_path, monkeypatch, json.dumps(origin))
    commit = repository.git("rev-parse", "HEAD").strip()
    expected = f"tools==1.0  # editable from a folder, commit {commit}\n"
    assert provenance.environment() == expected
    appended(repository.root / "README.md")
    assert provenance.environment() == expected.replace(commit, f"{commit} with changes")
    assert str(tmp_path) not in expected


def made_package(folder: Path, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """Have one installed package, with an origin as pip writes it."""
    info = folder / "tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tools\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(origin)
    found = [importlib.metadata.PathDistribution(info)]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
