"""What is asked of the machine: starts, peak memory, a digest."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from harness.base import machine


@pytest.mark.processes
def test_the_peak_of_memory_is_that_of_the_largest_moment() -> None:
    program = (
        "from harness.base.machine import peak_memory\n"
        "before = peak_memory()\n"
        "large = bytearray(150_000_000)\n"
        "with_it = peak_memory()\n"
        "del large\n"
        "print(before, with_it, peak_memory())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, with_it, after = map(int, ended.stdout.split())
    assert 145_000_000 < with_it - before < 170_000_000
    assert after == pytest.approx(with_it, abs=1_000_000), "the kernel counts in batches"


@pytest.mark.processes
def test_a_parents_memory_is_not_counted() -> None:
    """As getrusage does after a vfork."""
    program = (
        "import subprocess, sys\n"
        "large = bytearray(400_000_000)\n"
        "inner = 'from harness.base.machine import peak_memory; print(peak_memory())'\n"
        "subprocess.run([sys.executable, '-c', inner], check=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 200_000_000


def test_without_the_module_resource_the_peak_is_a_number_or_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    peak = machine.peak_memory()
    assert peak is None or peak > 1_000_000


def test_on_windows_psutil_tells_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def memory_info(self) -> types.SimpleNamespace:
            return types.SimpleNamespace(rss=1, peak_wset=123_456)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "Process", Process)
    assert machine.peak_memory() == 123_456


def test_no_module_imports_what_some_platforms_lack_when_it_is_imported() -> None:
    """`resource`, `fcntl` and the like may be imported inside of a function alone."""
    lacking = {"fcntl", "grp", "pwd", "resource", "termios", "winreg", "msvcrt"}
    found = []
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found += [f"{path.name}: {name}" for name in names & lacking]
    assert found == []


@pytest.mark.parametrize("version", [(7, 0, 0), (7, 1, 0)])
@pytest.mark.parametrize("status", [psutil.STATUS_RUNNING, psutil.STATUS_ZOMBIE])
def test_on_macos_the_start_does_not_move_with_the_clock(
    monkeypatch: pytest.MonkeyPatch, status: str, version: tuple[int, ...]
) -> None:
    """psutil 7.1 adds what the clock was set since its import to a time that never changes."""
    moves = [0.0]

    class Process:
        def __init__(self, pid: int) -> None:
            assert pid == 42

        def status(self) -> str:
            return status

        def create_time(self) -> float:
            return 1_700_000_000.25 + (moves[-1] if version >= (7, 1) else 0.0)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "version_info", version)
    monkeypatch.setattr(psutil, "boot_time", lambda: machine._FIRST_BOOT_TIME + moves[-1])
    for move in (0.0, 3600.0, -86400.0):
        moves.append(move)
        expected = None if status == psutil.STATUS_ZOMBIE else 1_700_000_000.25
        assert machine.process_start(42) == expected


@pytest.mark.processes
def test_a_process_that_has_ended_has_no_start() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert machine.process_start(ended.pid) is None


def test_a_laptop_keeps_its_digest_from_place_to_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows and macOS, where the system's own id is enough."""
    for platform, own in (("win32", "_machine_guid"), ("darwin", "_host_uuid")):
        digests = set()
        for place in ("home", "university"):
            monkeypatch.setattr(sys, "platform", platform)
            monkeypatch.setattr(machine, own, lambda: "an id")
            monkeypatch.setattr("platform.node", lambda place=place: place)
            machine.machine_digest.cache_clear()
            digests.add(machine.machine_digest())
        assert len(digests) == 1
    machine.machine_digest.cache_clear()


@pytest.mark.processes
def test_the_digest_is_the_same_in_every_process() -> None:
    program = "from harness.base.machine import machine_digest, boot_id; print(machine_digest())"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(ROOT), capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == machine.machine_digest()
