"""Benchmarks leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, children_of

MEASURING = """
from harness.cli import entry
from harness.benchmark.timed_process import python

entry.enter(lambda _: bool(python(["-c", "import time; time.sleep(60)"])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_an_interrupted_benchmark_ends_what_it_measures() -> None:
    process = subprocess.Popen([sys.executable, "-c", MEASURING], cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (measured := children_of(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert not Path(f"/proc/{measured[0]}").exists()
