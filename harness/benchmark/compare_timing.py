"""Time the comparison of many runs: the command, the frames, a server, and MLflow's own calls.

The harness records one made-up run in a database that MLflow created, as it does a real one. The
other runs are copies of its rows with other values.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.benchmark.timed_process import python, say, spread
from harness.cli.bench_flags import BenchSettings

SEEDS = 5
"""Runs of each configuration."""

MANY_RUNS = 10_000
"""Runs of a second, larger store, which only the command and the frames read."""

METRICS = (
    *("train/loss", "train/accuracy", "test/loss", "test/accuracy"),
    *("time/train_seconds", "time/evaluate_seconds", "time/examples_per_second"),
    "memory/device_peak_bytes",
)
"""The metrics of each epoch."""


def time_comparison(settings: BenchSettings) -> str:
    """Record the runs, read them in each way in turn, in new processes; return the table."""
    import torch

    from harness.training.device import describe

    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        few = _recorded(Path(folder, "few.db"), settings.n_runs, settings.num_epochs)
        many = _recorded(Path(folder, "many.db"), MANY_RUNS, settings.num_epochs)
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "mlflow": lambda: {"import": python(["-c", "import mlflow"], few).seconds},
            "compare": lambda: {"compare": python(["-m", "harness.compare"], few).seconds},
            "frames": lambda: _child("read_frames()", few),
            "public": lambda: _child("read_by_public_calls()", few),
            "server": lambda: _child("read_from_server()", few),
            "compare, many": lambda: {
                "many compare": python(["-m", "harness.compare"], many).seconds
            },
            "frames, many": lambda: {
                f"many {name}": value for name, value in _child("read_frames()", many).items()
            },
        }
        for number in range(1, settings.rounds + 1):
            for way, measure in ways.items():
                for name, value in measure().items():
                    measured.setdefault(name, []).append(value)
                say(f"round {number}/{settings.rounds} {way}")
    machine = describe(torch.device("cpu"))

    def row(name: str, key: str, words: str = "") -> str:
        return f"  {name:<46}{spread(measured[key], 3):>24}  {words}".rstrip()

    def server(name: str) -> str:
        requests = f"{measured[f'server {name} requests'][0]:,.0f} requests"
        return row(f"harness.{name}()", f"server {name}", requests)

    def ratio(key: str) -> str:
        middle, imported = map(statistics.median, (measured[key], measured["import"]))
        return f"{middle / imported:.2f}x the import"

    command = "python -m harness.compare, whole process"
    return "\n".join(
        [
            f"{settings.n_runs:,} runs of {settings.num_epochs} epochs and {len(METRICS)} metrics, "
            f"{SEEDS} seeds each, in SQLite",
            f"{machine['processor']}, Python {sys.version.partition(' ')[0]}, "
            f"n = {settings.rounds} processes of each kind in turn; median (lowest-highest), s",
            "",
            row("import mlflow, whole process", "import"),
            row(command, "compare", ratio("compare")),
            row("harness.runs()", "runs"),
            row("harness.epochs(), after it", "epochs"),
            row("MLflow's get_metric_history", "public", f"{measured['calls'][0]:,.0f} calls"),
            "through a tracking server on this machine:",
            server("runs"),
            server("epochs"),
            f"{MANY_RUNS:,} runs:",
            row(command, "many compare", ratio("many compare")),
            row("harness.runs()", "many runs"),
            row("harness.epochs(), after it", "many epochs"),
        ]
    )


def _recorded(database: Path, n_runs: int, num_epochs: int) -> dict[str, str]:
    """Record runs in a new database; return the environment of processes that read it."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    _child(f"record({n_runs}, {num_epochs})", environment)
    return environment


def record(n_runs: int, num_epochs: int) -> None:
    """Record one run of the baseline with made-up curves, and copies of it with other values."""
    from harness.tracking.messages import EndRun, LogEpoch, OpenStore, StartRun
    from harness.tracking.recorder import MlflowRecorder
    from harness.tracking.schema import DataRecord, RunRecord
    from harness.tracking.store_address import database_file

    recorder = MlflowRecorder()
    recorder.send(OpenStore())
    fields: dict[str, Any] = {
        **{"dataset": "mnist", "seed": 0, "lr": 0.1, "batch_size": 256, "num_epochs": num_epochs},
        **{"validation_size": 0, "split_seed": 0, "hidden_width": 256, "init_std": 0.01},
    }
    started = StartRun(
        RunRecord(
            mlflow_experiment="baseline",
            experiment="baseline",
            name="baseline",
            kind="run",
            parameters=fields,
            fields=fields,
            tags={"device": "cpu", "device_name": "made up", "threads": "1", "torch": "none"},
            data=(
                DataRecord("mnist", "training", "0" * 64, 60_000),
                DataRecord("mnist", "test", "1" * 64, 10_000),
            ),
        )
    )
    run_id = recorder.send(started)
    for epoch in range(1, num_epochs + 1):
        loss = 2.3 / (1 + epoch)
        values = [loss, math.exp(-loss), 1.1 * loss, math.exp(-1.1 * loss), 0.4, 0.03, 1e5, 1e8]
        recorder.send(LogEpoch(run_id, epoch, dict(zip(METRICS, values, strict=True))))
    recorder.send(
        EndRun(run_id, "completed", epoch=num_epochs, metrics={"time/total_seconds": 5.0})
    )
    path = database_file()
    assert path
    _copy(path, run_id, n_runs - 1)
    print("{}")


def _copy(database: Path, run_id: str, times: int) -> None:
    """Copy the rows of a recorded run: to record each run by itself would take minutes."""

    def changed(row: dict[str, Any], number: int) -> dict[str, Any]:
        config, seed = divmod(number, SEEDS)
        values = {"lr": (100 + config) / 1000, "seed": seed}
        key = row.get("key")
        row = {**row, "run_uuid": f"{number:08x}".ljust(32, "0")}
        if key in values:
            row["value"] = str(values[key])
        elif key in ("harness.parameters", "harness.fields"):
            row["value"] = json.dumps(json.loads(row["value"]) | values)
        elif key in METRICS:
            row["value"] *= 1 - 0.0001 * number
        return row

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            rows = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
            templates = [dict(row) for row in rows]
            names, places = ", ".join(templates[0]), ", ".join("?" * len(templates[0]))
            connection.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({places})",
                (
                    tuple(changed(row, number).values())
                    for number in range(1, times + 1)
                    for row in templates
                ),
            )


def read_frames() -> None:
    """Print the seconds of both frames; the first includes their imports."""
    import harness

    started = time.perf_counter()
    runs = harness.runs()
    read = time.perf_counter()
    harness.epochs(runs)
    print(json.dumps({"runs": read - started, "epochs": time.perf_counter() - read}))


def read_by_public_calls() -> None:
    """Print the seconds of MLflow's own call for each metric of each run."""
    from harness.tracking.store import Store

    client = Store().client
    started = time.perf_counter()
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    calls = 0
    for run in runs:
        for metric in METRICS:
            client.get_metric_history(run.info.run_id, metric)
            calls += 1
    print(json.dumps({"public": time.perf_counter() - started, "calls": calls}))


def read_from_server() -> None:
    """Print the seconds and requests of both frames, read from a server on this machine."""
    import requests

    import harness
    from harness.tracking.pages import LOOPBACK, serving

    count = 0
    send = requests.Session.send

    def counted(*arguments: Any, **options: Any) -> requests.Response:
        nonlocal count
        count += 1
        return send(*arguments, **options)

    requests.Session.send = counted  # type: ignore[method-assign]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    measured: dict[str, float] = {}
    with serving(LOOPBACK, port) as pages:
        os.environ |= {
            "MLFLOW_TRACKING_URI": pages.address,
            "MLFLOW_TRACKING_TOKEN": pages.token,
        }
        for name, read in (("runs", harness.runs), ("epochs", harness.epochs)):
            count, started = 0, time.perf_counter()
            read()
            measured[f"server {name}"] = time.perf_counter() - started
            measured[f"server {name} requests"] = count
    print(json.dumps(measured))


def _child(call: str, environment: dict[str, str]) -> dict[str, float]:
    """What a function of this module prints, called in a process of its own."""
    program = f"from harness.benchmark import compare_timing; compare_timing.{call}"
    result: dict[str, float] = json.loads(python(["-c", program], environment).output)
    return result
