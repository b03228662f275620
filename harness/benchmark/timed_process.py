"""A Python process, timed from outside, for the benchmarks."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.base import project
from harness.base.errors import RunFailed
from harness.base.processes import child_process


@dataclass(frozen=True)
class Finished:
    """A process that ended with status 0: what it printed, and its wall time in seconds."""

    output: str
    seconds: float


def python(arguments: list[str], environment: dict[str, str] | None = None) -> Finished:
    """Run Python in the project's root with empty standard input.

    Raises:
        RunFailed: It ended with another status than 0.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with child_process(
            [sys.executable, *arguments],
            cwd=project.root(),
            env=project.environment_for_child(environment or os.environ),
            stdout=output,
            stderr=errors,
        ) as process:
            status = process.wait()
            seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if status:
            raise RunFailed(f"{' '.join(arguments)} failed:\n{errors.read()[-2000:]}")
        return Finished(output.read(), seconds)


def python_with_peak(module: str, arguments: list[str]) -> tuple[Finished, float]:
    """Run a module as `python -m` does; return the most memory, in bytes, that it has taken too.

    The process reports it itself, after everything else, in a last line of output that is left out
    of the result. A figure from outside would be a sample, or count this process's memory.
    """
    finished = python(["-c", _REPORTING_ITS_PEAK, module, *arguments])
    output, _, peak = finished.output.rstrip("\n").rpartition("\n")
    return dataclasses.replace(finished, output=output), float(peak)


_REPORTING_ITS_PEAK = """
import runpy, sys
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    from harness.base.machine import peak_memory
    print(peak_memory() or "nan")
"""


def run_id(finished: Finished) -> str:
    """Return the id of the run that a command printed at its end.

    Raises:
        RunFailed: It printed none.
    """
    found = re.search(r"^run (\w+)$", finished.output, re.MULTILINE)
    if not found:
        raise RunFailed(f"the command printed no run id:\n{finished.output}")
    return found[1]


def recorded(run_id: str, environment: dict[str, str]) -> dict[str, list[float]]:
    """Return the metrics of a run, epoch by epoch.

    Another process reads them, so that this one stays small: its children are timed.
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
    """Return median, lowest and highest: `0.412 (0.405-0.431)`."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low}-{high})"


def say(line: str) -> None:
    """Print progress to standard error."""
    print(line, file=sys.stderr, flush=True)
