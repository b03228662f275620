"""The plain script against the harness: epochs, whole processes, memory, matrix products."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.base import project
from harness.base.processes import child_process
from harness.benchmark.timed_process import python, python_with_peak, recorded, run_id, say, spread
from harness.cli.bench_flags import BenchSettings

FLOP_PER_IMAGE = 2 * (2 * 784 * 256 + 3 * 256 * 10)
"""Forward and weight gradient of both layers, and the input gradient of the second."""

LIGHT_COMMANDS = {
    "list of everything": ["harness"],
    "run --help": ["harness.run", "--help"],
    "unknown experiment": ["harness.run", "baselin"],
    "help of an experiment": ["harness.run", "baseline", "--help"],
    "bad value": ["harness.run", "baseline", "--lr", "-1"],
}
"""Commands that answer without training, each with its name in the table."""


@dataclass(frozen=True)
class Measurement:
    """One training in its own process: seconds and bytes."""

    wall: float
    memory: float
    train: float
    evaluate: float
    checkpoint: float = 0.0
    record: float = 0.0
    store: float = 0.0
    model: float = 0.0
    figures: float = 0.0
    recorder_memory: float = 0.0


def time_runs(settings: BenchSettings, root: Path) -> str:
    """Time the plain script and the harness, alternating; return the table."""
    from harness.training.builtin_datasets import open_dataset

    size = len(open_dataset(settings.dataset, root).train)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "HARNESS_DATA_ROOT": str(root),
        }
        kinds: dict[str, Callable[[], Measurement]] = {
            "plain": lambda: _plain(settings, root),
            "exact": lambda: _harness(settings, environment, "highest"),
            "medium": lambda: _harness(settings, environment, "medium"),
        }
        # The first run creates the database and reads the libraries from disk. This one, on the
        # small digits, is not timed.
        python(["-m", "harness.run", "baseline", "--dataset", "digits", "--quiet"], environment)
        measured: dict[str, list[Measurement]] = {kind: [] for kind in kinds}
        floors: list[float] = []
        tallies: list[dict[str, float]] = []
        for number in range(1, settings.rounds + 1):
            for kind, measure in kinds.items():
                measured[kind].append(measure())
                say(f"round {number}/{settings.rounds} {kind}: {measured[kind][-1].wall:.1f} s")
            floors.append(matrix_product_seconds(size, settings.threads))
            tallies.append(metric_seconds(size, settings.threads))
        light = {
            what: [_answer_seconds(command) for _ in range(settings.rounds)]
            for what, command in LIGHT_COMMANDS.items()
        }
    return report(settings, size, measured, floors, tallies, light)


def matrix_product_seconds(num_examples: int, threads: int = 0, batch_size: int = 256) -> float:
    """Return the seconds that the matrix products of one baseline epoch take alone.

    No training can be faster. A batch needs five products: two in the forward pass, two for the
    gradients of the weights, one for that of the hidden layer. They are timed in float32 at full
    precision.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    images, hidden, logits = (torch.randn(batch_size, width) for width in (784, 256, 10))
    first, second = torch.randn(256, 784), torch.randn(10, 256)

    def products() -> None:
        torch.mm(images, first.t())
        torch.mm(hidden, second.t())
        torch.mm(logits.t(), hidden)
        torch.mm(logits, second)
        torch.mm(hidden.t(), images)

    batches = -(-num_examples // batch_size)
    for _ in range(batches // 4):
        products()
    started = time.perf_counter()
    for _ in range(batches):
        products()
    return time.perf_counter() - started


def metric_seconds(num_examples: int, threads: int = 0, batch_size: int = 256) -> dict[str, float]:
    """Return the seconds that metrics of ten classes take in one epoch of training, by name.

    What is timed is the loss alone, the accuracy of every experiment, and, where torchmetrics is
    installed, its macro-averaged F1 score; the last two without the loss.
    """
    import torch

    from harness.training.metrics import ACCURACY, Metric, MetricTally

    if threads:
        torch.set_num_threads(threads)
    metrics: dict[str, dict[str, Metric]] = {"loss": {}, "accuracy": {"accuracy": ACCURACY}}
    if find_spec("torchmetrics"):
        from torchmetrics.classification import MulticlassF1Score

        metrics["macro F1"] = {"macro_f1": Metric(lambda: MulticlassF1Score(num_classes=10))}
    logits, labels = torch.randn(batch_size, 10), torch.arange(batch_size) % 10
    loss = torch.tensor(2.3)
    seconds: dict[str, float] = {}
    for name, chosen in metrics.items():
        tally = MetricTally(chosen, torch.device("cpu"))
        tally.update(logits, loss, labels)
        tally.values()
        started = time.perf_counter()
        for _ in range(-(-num_examples // batch_size)):
            tally.update(logits, loss, labels)
        tally.values()
        seconds[name] = time.perf_counter() - started - seconds.get("loss", 0.0)
    return seconds


def report(
    settings: BenchSettings,
    size: int,
    measured: dict[str, list[Measurement]],
    floors: list[float],
    tallies: list[dict[str, float]],
    light: dict[str, list[float]],
) -> str:
    """Return the table: medians, ranges, ratios to the plain script, and the machine."""
    import torch

    from harness.training.device import describe

    machine = describe(torch.device("cpu"))
    lines = [
        f"{settings.dataset}, {size:,} training examples, baseline, {settings.num_epochs} epochs, "
        f"n = {settings.rounds} processes of each kind in turn",
        f"{machine['processor']}, {settings.threads or machine['threads']} threads, "
        f"torch {machine['torch']}, Python {sys.version.partition(' ')[0]}",
        "",
        "median (lowest-highest); ratio = plain / harness",
        "",
        f"{'':<36}{'plain':>24}{'exact':>24}{'medium':>24}{'ratio exact':>13}{'medium':>8}",
    ]

    def row(name: str, value: Callable[[Measurement], float], digits: int = 3) -> None:
        columns = {kind: [value(m) for m in runs] for kind, runs in measured.items()}
        middle = {kind: statistics.median(values) for kind, values in columns.items()}
        cells = "".join(f"{spread(values, digits):>24}" for values in columns.values())
        if middle["plain"]:
            exact, medium = (middle["plain"] / middle[kind] for kind in ("exact", "medium"))
            cells += f"{exact:>12.2f}x{medium:>7.2f}x"
        lines.append(f"{name:<36}{cells}")

    row("epoch: training and evaluation, s", lambda m: m.train + m.evaluate)
    row("  training, s", lambda m: m.train)
    row("  evaluation, s", lambda m: m.evaluate)
    row(f"whole process, {settings.num_epochs} epochs, s", lambda m: m.wall, 2)
    row("peak memory, training process, MB", lambda m: m.memory / 1e6, 0)
    row("peak memory, recorder process, MB", lambda m: m.recorder_memory / 1e6, 0)
    epochs = settings.num_epochs
    row("checkpoint an epoch, s", lambda m: m.checkpoint / epochs, 4)
    row("  share of training, %", lambda m: 100 * m.checkpoint / epochs / m.train, 1)
    row("record an epoch, s", lambda m: m.record / epochs, 4)
    row("  share of training, %", lambda m: 100 * m.record / epochs / m.train, 1)
    row("waiting for the store, s", lambda m: m.store)
    row("export and log the model, s", lambda m: m.model)
    row("draw and log the figures, s", lambda m: m.figures)
    floor = statistics.median(floors)
    trained = statistics.median(m.train for m in measured["exact"])
    lines += [
        "",
        f"matrix products of an epoch alone, s: {spread(floors, 3)}, "
        f"{FLOP_PER_IMAGE * size / floor / 1e9:.0f} GFLOP/s",
        *(
            f"  training / matrix products, {kind}: "
            f"{statistics.median(m.train for m in measured[kind]) / floor:.2f}"
            for kind in measured
        ),
        "",
        "metrics of an epoch alone, s, and their share of exact training:",
        *(
            f"  {name:<24}{spread(seconds, 4):>22}"
            f"{100 * statistics.median(seconds) / trained:>8.2f} %"
            for name in tallies[0]
            for seconds in [[tally[name] for tally in tallies]]
        ),
        "",
        "answers without training, s:",
        *(f"  {what:<24}{spread(seconds, 2):>22}" for what, seconds in light.items()),
    ]
    return "\n".join(lines)


def _plain(settings: BenchSettings, root: Path) -> Measurement:
    from harness.training.builtin_datasets import TORCHVISION_CLASSES

    options = {
        "--dataset": TORCHVISION_CLASSES[settings.dataset],
        "--data-root": str(root),
        "--num-epochs": str(settings.num_epochs),
        "--threads": str(settings.threads),
    }
    words = [word for pair in options.items() for word in pair]
    finished, peak = python_with_peak("harness.benchmark.reference", words)
    epochs = [json.loads(line) for line in finished.output.splitlines()]
    return Measurement(
        wall=finished.seconds,
        memory=peak,
        train=statistics.median(epoch["time/train_seconds"] for epoch in epochs),
        evaluate=statistics.median(epoch["time/evaluate_seconds"] for epoch in epochs),
    )


def _harness(
    settings: BenchSettings, environment: dict[str, str], matmul_precision: str
) -> Measurement:
    options = {
        "--dataset": settings.dataset,
        "--num-epochs": str(settings.num_epochs),
        "--threads": str(settings.threads),
        "--device": "cpu",
        "--matmul-precision": matmul_precision,
    }
    words = [word for pair in options.items() for word in pair]
    finished = python(["-m", "harness.run", "baseline", *words], environment)
    metrics = recorded(run_id(finished), environment)
    shutil.rmtree(project.mlruns() / "checkpoints" / run_id(finished), ignore_errors=True)
    return Measurement(
        wall=finished.seconds,
        memory=metrics.get("memory/process_peak_bytes", [math.nan])[0],
        train=statistics.median(metrics["time/train_seconds"]),
        evaluate=statistics.median(metrics["time/evaluate_seconds"]),
        checkpoint=metrics["time/checkpoint_seconds"][0],
        record=metrics["time/record_seconds"][0],
        store=metrics["time/store_seconds"][0],
        model=metrics["time/model_seconds"][0],
        figures=metrics.get("time/figures_seconds", [0.0])[0],
        recorder_memory=metrics.get("memory/recorder_peak_bytes", [math.nan])[0],
    )


def _answer_seconds(command: list[str]) -> float:
    """Return how long a command takes to answer, whatever its exit status."""
    started = time.perf_counter()
    with child_process(
        [sys.executable, "-m", *command],
        cwd=project.root(),
        env=project.environment_for_child(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.wait()
    return time.perf_counter() - started
