"""A study the usual way and with the harness: trials an hour, and the best result."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.benchmark.timed_process import python, say
from harness.cli.bench_flags import BenchSettings

STUDY = "lr_search"
"""The study that is timed: it searches the baseline's learning rate."""


@dataclass(frozen=True)
class StudyMeasurement:
    """One study without its confirmation.

    Attributes:
        wall: Seconds from the start of the first process to the end of the last.
        best: Highest validation accuracy.
        outside: Share of a trial's time that is neither training nor evaluation: median over the
            completed trials, without the first of each worker. None for the usual way.
    """

    label: str
    processors: str
    trials: int
    pruned: int
    wall: float
    best: float
    outside: float | None = None

    @property
    def trials_per_hour(self) -> float:
        """Finished trials an hour, with the start-up."""
        return self.trials / self.wall * 3600


def time_studies(settings: BenchSettings, root: Path) -> str:
    """Run the same search each way, one after the other; return the table."""
    import torch

    from harness.training.device import describe

    cores = torch.get_num_threads()
    measured = [_usual(settings, root, cores)]
    say(f"usual way: {measured[0].wall:.1f} s")
    ways = [
        ("exact, one worker", 1, "highest", "none"),
        ("exact", cores, "highest", "none"),
        ("medium", cores, "medium", "none"),
        ("medium, median", cores, "medium", "median"),
        ("medium, hyperband", cores, "medium", "hyperband"),
    ]
    for label, workers, precision, pruner in ways:
        measured.append(_harness(settings, root, label, workers, precision, pruner))
        say(f"{label}: {measured[-1].wall:.1f} s")
    machine = describe(torch.device("cpu"))
    lines = [
        f"{STUDY}, {settings.dataset}, {settings.num_epochs} epochs, TPE, n = 1 study of each kind",
        f"{machine['processor']}, {cores} cores, torch {machine['torch']}, "
        f"Python {sys.version.partition(' ')[0]}",
        "",
        f"{'':<20}{'processes x threads':>20}{'trials':>8}{'trials/h':>10}{'ratio':>8}"
        f"{'wall, s':>10}{'pruned':>8}{'best':>8}{'outside training':>18}",
    ]
    usual = measured[0]
    for m in measured:
        outside = f"{100 * m.outside:.1f}%" if m.outside is not None else "-"
        lines.append(
            f"{m.label:<20}{m.processors:>20}{m.trials:>8}{m.trials_per_hour:>10,.0f}"
            f"{m.trials_per_hour / usual.trials_per_hour:>7.1f}x{m.wall:>10.1f}"
            f"{m.pruned:>8}{m.best:>8.4f}{outside:>18}"
        )
    one, two = measured[1], measured[2]
    lines += ["", f"{cores} workers of one thread against one: {one.wall / two.wall:.2f}x"]
    return "\n".join(lines)


def _usual(settings: BenchSettings, root: Path, cores: int) -> StudyMeasurement:
    from harness.training.builtin_datasets import TORCHVISION_CLASSES

    options = {
        "--dataset": TORCHVISION_CLASSES[settings.dataset],
        "--data-root": str(root),
        "--num-epochs": str(settings.num_epochs),
        "--n-trials": str(settings.usual_trials or settings.n_trials),
    }
    words = [word for pair in options.items() for word in pair]
    finished = python(["-m", "harness.benchmark.reference_study", *words])
    values = [json.loads(line)["value"] for line in finished.output.splitlines()]
    return StudyMeasurement(
        "usual way", f"1 x {cores}", len(values), 0, finished.seconds, max(values)
    )


def _harness(
    settings: BenchSettings, root: Path, label: str, workers: int, precision: str, pruner: str
) -> StudyMeasurement:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        options = {
            "--dataset": settings.dataset,
            "--data-root": str(root),
            "--num-epochs": str(settings.num_epochs),
            "--n-trials": str(settings.n_trials),
            "--workers": str(workers),
            "--threads": "1",
            "--matmul-precision": precision,
            "--pruner": pruner,
            "--confirm-seeds": "0",
            "--device": "cpu",
            "--storage": f"sqlite:///{folder}/optuna.db",
        }
        words = [word for pair in options.items() for word in pair]
        finished = python(["-m", "harness.study", STUDY, *words], environment)
        program = (
            "import dataclasses, json, sys; from harness.search import results, storage;"
            "rows = results.trial_rows(storage.load_stored(sys.argv[1], sys.argv[2]));"
            "print(json.dumps([dataclasses.asdict(row) for row in rows]))"
        )
        rows = json.loads(python(["-c", program, options["--storage"], STUDY]).output)
    seen: set[int] = set()
    shares = []
    for row in sorted(rows, key=lambda row: row["number"]):
        if row["worker"] in seen and row["outcome"] == "completed":
            shares.append(1 - row["training_seconds"] / row["seconds"])
        seen.add(row["worker"])
    return StudyMeasurement(
        label,
        f"{workers} x 1",
        len(rows),
        sum(row["outcome"] == "pruned" for row in rows),
        finished.seconds,
        max(row["value"] for row in rows if row["outcome"] == "completed"),
        statistics.median(shares) if shares else None,
    )
