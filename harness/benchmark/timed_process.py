"""A Python process, timed from outside: for the benchmarks."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.base import project
from harness.base.errors import RunFailed


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        seconds: wall time.
        memory: the most memory, in bytes, that it or a process that it waited for has taken.
    """

    output: str
    seconds: float
    memory: float


def python(arguments: list[str], environment: dict[str, str] | None = None) -> Finished:
    """Run Python from the root with nothing on standard input.

    Raises:
        RunFailed: it ended with another status than 0.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RunFailed(f"{' '.join(arguments)} failed:\n{errors.read()[-2000:]}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Finished(output.read(), seconds, float(usage.ru_maxrss * unit))


def run_id(finished: Finished) -> str:
    """The id of the run that a command printed at its end.

    Raises:
        RunFailed: it printed none.
    """
    found = re.search(r"^run (\w+)$", finished.output, re.MULTILINE)
    if not found:
        raise RunFailed(f"the command printed no run id:\n{finished.output}")
    return found[1]


def recorded(run_id: str, environment: dict[str, str]) -> dict[str, list[float]]:
    """The metrics of a run, epoch by epoch, read by another process.

    What it imports must not slow this one's children.
    """
    program = (
        "import harness, json, sys; epochs = harness.epochs(run_ids=sys.argv[1:]);"
        "metrics = epochs.groupby('metric', observed=True)['value'].agg(list);"
        "print(json.dumps(metrics.to_dict()))"
    )
    output = python(["-c", program, run_id], environment).output
    metrics: dict[str, list[float]] = json.loads(output)
    return metrics


def spread(values: Sequence[float], digits: int) -> str:
    """Median, lowest and highest: `0.412 (0.405-0.431)`."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low}-{high})"


def say(line: str) -> None:
    """Tell whoever waits how far the benchmark is."""
    print(line, file=sys.stderr, flush=True)
