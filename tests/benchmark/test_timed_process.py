"""What the benchmarks measure of a process: its time, its output, its own peak of memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from harness.base.errors import RunFailed
from harness.benchmark.timed_process import python, python_with_peak

pytestmark = pytest.mark.processes


def test_a_process_is_timed_and_its_output_kept() -> None:
    finished = python(["-c", "import time; time.sleep(0.5); print('a'); print('b')"])
    assert finished.output == "a\nb\n"
    assert 0.5 <= finished.seconds < 20


def test_a_failure_is_raised_with_the_end_of_its_words() -> None:
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        python(["-c", "1 / 0"])


def test_the_peak_is_that_of_the_process_and_not_of_this_one() -> None:
    ballast = bytearray(600_000_000)
    ballast[::4096] = bytes(len(ballast[::4096]))
    words = ["-n", "1", "-r", "1", "bytearray(300_000_000)"]
    finished, peak = python_with_peak("timeit", words)
    assert finished.output.startswith("1 loop, best of 1: ")
    assert "\n" not in finished.output
    assert 300_000_000 < peak < 450_000_000
    _, without = python_with_peak("timeit", [*words[:4], "None"])
    assert peak - without == pytest.approx(300_000_000, abs=20_000_000)
    del ballast


def test_a_module_that_leaves_by_itself_reports_its_peak_too() -> None:
    finished, peak = python_with_peak("timeit", ["--help"])
    assert "Usage" in finished.output or "usage" in finished.output
    assert peak > 1_000_000


INTERRUPTED = """
import sys
from harness.base import signals
from harness.benchmark.timed_process import python
signals.install()
print("ready", flush=True)
python(["-c", "import time; time.sleep(600)", sys.argv[1]])
"""


def test_an_interrupted_benchmark_leaves_no_process(tmp_path: Path) -> None:
    mark = str(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, mark],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    killer = threading.Timer(60, process.kill)
    killer.start()
    assert process.stdout
    process.stdout.readline()
    while not psutil.Process(process.pid).children():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    killer.cancel()
    lines = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    assert not any(mark in line for line in lines)
