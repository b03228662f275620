"""An interruption at the very moment in which a command starts a process leaves none behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import Checkout, Recorded

INTERRUPTING = """
import os, signal, sys
_left = [int(os.environ.pop("STARTS_BEFORE", "-1"))]
def _hook(event, arguments):
    if event in ("subprocess.Popen", "os.fork") and _left[0] >= 0:
        _left[0] -= 1
        if _left[0] < 0:
            signal.raise_signal(getattr(signal, os.environ["SIGNAL_AT_START"]))
sys.addaudithook(_hook)
"""
"""A module that Python imports at its start: the n-th start of a process raises a signal."""

STATUS = {"SIGINT": 130, "SIGTERM": 143}


def of_checkout(root: Path) -> list[list[str]]:
    """The command lines of all living processes of a checkout."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()) == root.resolve() and process.status() != "zombie":
                found.append(process.cmdline())
    return found


COMMANDS = (
    "harness.run softmax_regression --dataset digits --threads 1",
    "harness.run --continue last --num-epochs 3",
    "harness.study lr_search --dataset digits --threads 1 --workers 2",
    "harness.verify last",
    "harness.report joint_search --out report.html",
    "harness.sync",
    "harness.ui --no-browser",
)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize("name", STATUS)
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_that_is_being_started_is_ended(
    worked: Recorded, tmp_path: Path, command: str, before: int, name: str
) -> None:
    if before and not command.startswith("harness.study"):
        pytest.skip("it starts one process")
    checkout, _ = worked
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    changes = {
        "PYTHONPATH": f"{tmp_path}:{checkout.root}",
        "STARTS_BEFORE": str(before),
        "SIGNAL_AT_START": name,
    }
    module, *words = command.split()
    ended = checkout.command(module, *words, changes=changes)
    assert ended.status == STATUS[name], ended
    assert "Traceback" not in ended.errors
    deadline = time.monotonic() + 30
    while (left := of_checkout(checkout.root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


INTERRUPTED = """
from harness.base import signals
signals.install()
{body}
"""

STARTS = {
    "git": "from harness.base import provenance\nprovenance._git('help', '--all')",
    "a timed answer": (
        "from harness.benchmark import run_timing\nrun_timing._answer_seconds(['timeit', '-n1'])"
    ),
    "a timed process": (
        "from harness.benchmark import timed_process\n"
        "timed_process.python(['-c', 'import time; time.sleep(600)'])"
    ),
}
"""What starts a process that does not end by itself when its parent has gone."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize("body", STARTS.values(), ids=STARTS)
def test_a_small_process_is_waited_for_or_ended(
    checkout: Checkout, tmp_path: Path, body: str
) -> None:
    """The signal comes after the fork and before the process is known to whoever starts it."""
    (tmp_path / "sitecustomize.py").write_text(AFTER_FORK)
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(body=body)],
        cwd=checkout.root,
        env=checkout.environment(PYTHONPATH=f"{tmp_path}:{checkout.root}"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Interrupted: SIGTERM" in ended.stderr
    assert of_checkout(checkout.root) == []


AFTER_FORK = """
import os, signal, subprocess
_execute = subprocess.Popen._execute_child
def _executed(self, *arguments):
    _execute(self, *arguments)
    if "harness.base.signals" in __import__("sys").modules:
        subprocess.Popen._execute_child = _execute
        signal.raise_signal(signal.SIGTERM)
subprocess.Popen._execute_child = _executed
"""
