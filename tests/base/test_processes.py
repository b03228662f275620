"""Processes are ended with everything that they have started, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.base import signals
from harness.base.machine import process_start
from harness.base.processes import child_process, end_tree, is_running, process_tree

pytestmark = pytest.mark.processes

TREE = """
import os, subprocess, sys, time
depth = int(sys.argv[1])
if depth:
    words = [sys.executable, "-c", sys.argv[2], str(depth - 1), *sys.argv[2:]]
    subprocess.Popen(words, start_new_session=True)
if "stubborn" in sys.argv:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready\\n")  # in one piece: others write there too
time.sleep(600)
"""
"""A process that starts another one, in a session of its own, and so on."""


def start_tree(depth: int, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TREE, str(depth), TREE, *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    for _ in range(depth + 1):
        assert process.stdout.readline() == "ready\n"
    return process


def lives(pid: int) -> bool:
    return process_start(pid) is not None


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[str]]:
    """A process that nobody asks to end."""
    process = start_tree(0)
    yield process
    process.kill()
    process.communicate()


def test_a_process_ends_with_its_descendants_and_nobody_else(
    bystander: subprocess.Popen[str],
) -> None:
    process = start_tree(2)
    tree = [each.pid for each in process_tree(process.pid)]
    assert len(tree) == 3
    end_tree(process.pid)
    assert not any(map(lives, tree))
    assert lives(bystander.pid)
    assert process.wait() == -signal.SIGTERM, "whoever waits for it still gets its status"
    process.communicate()


def test_what_does_not_end_when_asked_is_killed() -> None:
    process = start_tree(1, "stubborn")
    tree = [each.pid for each in process_tree(process.pid)]
    started = time.monotonic()
    end_tree(process.pid, grace=0.5)
    assert time.monotonic() - started >= 0.5
    assert not any(map(lives, tree))
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def test_without_grace_a_tree_is_killed_at_once() -> None:
    process = start_tree(1, "stubborn")
    tree = [each.pid for each in process_tree(process.pid)]
    end_tree(process.pid, grace=0)
    assert not any(map(lives, tree))
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    end_tree(process.pid)  # it has ended: nothing happens
    assert process_tree(process.pid) == []


def test_a_running_process_is_told_from_a_zombie_and_from_a_later_one() -> None:
    process = start_tree(0)
    start = process_start(process.pid)
    assert start is not None
    assert is_running(process.pid, str(start))
    assert not is_running(process.pid, str(start - 100))
    assert not is_running(process.pid, "nonsense")
    process.kill()
    deadline = time.monotonic() + 5
    while is_running(process.pid, str(start)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode is None, "nobody has waited for it: it is a zombie"
    assert psutil.pid_exists(process.pid)
    assert not is_running(process.pid, str(start))
    process.communicate()


def test_a_child_is_ended_with_its_tree_when_the_block_ends() -> None:
    command = [sys.executable, "-c", TREE, "1", TREE]
    with child_process(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        with process.stdout:
            for _ in range(2):
                process.stdout.readline()
        tree = [each.pid for each in process_tree(process.pid)]
        assert len(tree) == 2
    assert not any(map(lives, tree))
    assert process.returncode == -signal.SIGTERM


@pytest.fixture
def _installed() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install()
    yield
    signals.install()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_installed")
def test_an_interruption_while_a_child_is_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with (
        pytest.raises(signals.Interrupted),
        child_process([sys.executable, "-c", "import time; time.sleep(600)"]),
    ):
        raise AssertionError("the block is not entered")
    (process,) = started
    assert process.returncode is not None
    assert not lives(process.pid)


def test_a_child_has_no_input_and_a_session_on_request() -> None:
    program = "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpid())"
    for own_session in (False, True):
        with child_process(
            [sys.executable, "-c", program], own_session=own_session, stdout=subprocess.PIPE
        ) as process:
            output, _ = process.communicate()
        assert output.split() == [b"''", str(own_session).encode()]
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_start_is_counted_from_the_boot_and_so_unmoved_by_the_clock() -> None:
    start = process_start(os.getpid())
    assert start is not None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    age = time.time() - psutil.Process().create_time()
    assert start / os.sysconf("SC_CLK_TCK") == pytest.approx(uptime - age, abs=2)
    assert process_start(os.getpid()) == start
