"""What only POSIX systems have is not needed: a run and a study with workers, without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import QUICK, Checkout
from packaging.version import Version

SITE = """
import builtins, os

for name in ("fork", "forkpty", "setsid", "killpg", "wait4"):
    if hasattr(os, name):
        delattr(os, name)

real_import = builtins.__import__

def importing(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__spec__") or (globals or {}).get("__name__") or ""
    importer = getattr(importer, "name", importer)
    if name == "resource" and importer.startswith("harness"):
        raise ModuleNotFoundError("No module named 'resource'", name="resource")
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = importing
with open(os.environ["WITHOUT_FORK_SEEN"], "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
"""Run by every Python process below the command, before anything else."""


@pytest.fixture
def changes(tmp_path: Path, checkout: Checkout) -> dict[str, str]:
    """The environment of an interpreter that lacks what Windows lacks."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    return {
        "PYTHONPATH": f"{folder}:{checkout.root}",
        "WITHOUT_FORK_SEEN": str(tmp_path / "seen"),
    }


def processes_seen(changes: dict[str, str]) -> int:
    return len(Path(changes["WITHOUT_FORK_SEEN"]).read_text().splitlines())


def test_the_interpreter_lacks_them(checkout: Checkout, changes: dict[str, str]) -> None:
    program = "import os, resource; print([hasattr(os, n) for n in ('fork', 'setsid', 'wait4')])"
    (checkout.root / "asking.py").write_text(program)
    (checkout.root / "harness" / "asking.py").write_text("import resource\n")
    assert checkout.command("asking", changes=changes).output == "[False, False, False]\n"
    refused = checkout.command("harness.asking", changes=changes)
    assert "No module named 'resource'" in refused.errors


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7"), reason="its export refuses another __import__"
)
def test_a_run_is_recorded(checkout: Checkout, changes: dict[str, str]) -> None:
    ended = checkout.run("softmax_regression", *QUICK, changes=changes)
    assert (ended.status, ended.errors) == (0, "")
    (run,) = checkout.runs()
    assert run.info.run_id == ended.run_id
    assert run.data.tags["harness.outcome"] == "completed"
    assert processes_seen(changes) >= 2, "the run and its recorder"


def test_a_study_with_two_workers_is_recorded(checkout: Checkout, changes: dict[str, str]) -> None:
    ended = checkout.command(
        "harness.study",
        *("lr_search", *QUICK, "--workers", "2", "--n-trials", "4", "--confirm-seeds", "1"),
        changes=changes,
    )
    assert (ended.status, ended.errors) == (0, "")
    outcomes = [
        run.data.tags["harness.outcome"]
        for run in checkout.runs()
        if run.data.tags["harness.kind"] == "trial"
    ]
    assert len(outcomes) == 4
    assert set(outcomes) <= {"completed", "pruned", "collapsed"}
    assert processes_seen(changes) >= 4, "the command, its recorder, two workers"
