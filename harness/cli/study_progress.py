"""What a person sees of a study: a live table of workers on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.base import provenance
from harness.base.formatting import number_of
from harness.runs import runner
from harness.search.study import describe_space
from harness.search.trial_queue import Search
from harness.tracking.store_address import described
from harness.training.device import Execution
from harness.workers.coordinator import Progress, StudyWatcher
from harness.workers.local_pool import WorkerProcess


class Quiet:
    """Shows nothing."""

    def started(self, progress: Progress) -> None:
        """The workers are starting."""

    def event(self, progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> None:
        """A worker has said something."""

    def stopped(self) -> None:
        """There is nothing more to see."""


class Lines(Quiet):
    """A line for each trial and confirmation that ends."""

    def started(self, progress: Progress) -> None:
        """The workers are starting."""
        print(heading(progress), flush=True)

    def event(self, progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> None:
        """A worker has said something."""
        if line := event_line(progress, worker, event):
            print(line, flush=True)


class Workers(Quiet):
    """A table of the workers below the lines, drawn anew as they report."""

    def __init__(self) -> None:
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def started(self, progress: Progress) -> None:
        """The workers are starting."""
        self.console.print(heading(progress), highlight=False)
        self.live.update(workers_table(progress))
        self.live.start()

    def event(self, progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> None:
        """A worker has said something."""
        if line := event_line(progress, worker, event):
            self.console.print(line, highlight=False, markup=False)
        self.live.update(workers_table(progress))

    def stopped(self) -> None:
        """Take the table away."""
        self.live.stop()


def watcher(quiet: bool) -> StudyWatcher:
    """The watcher for this standard output: a live one only where it is a terminal."""
    if quiet:
        return Quiet()
    return Workers() if sys.stdout.isatty() else Lines()


def heading(progress: Progress) -> str:
    """One line about what begins."""
    n = len(progress.workers)
    return (
        f"{progress.counts.finished} of {progress.n_trials} trials finished; "
        f"starting {n} worker{'' if n == 1 else 's'}"
    )


def event_line(progress: Progress, worker: WorkerProcess, event: dict[str, Any]) -> str:
    """One line about what a worker said; "" for what only moves the table."""
    match event["event"]:
        case "told":
            value = f"{event['value']:.4f}" if event["value"] is not None else "no value"
            reason = f" ({event['reason']})" if event["reason"] else ""
            best = progress.best_value
            return (
                f"[{progress.counts.finished}/{progress.n_trials}] {event['name']}: "
                f"{event['outcome']}, {value} "
                f"after {number_of(event['num_epochs'], 'epoch')}{reason}"
                + (f"; best {best:.4f}" if best is not None else "")
            )
        case "confirmed":
            accuracy = event["accuracy"]
            found = event["outcome"] if accuracy is None else f"test accuracy {accuracy:.4f}"
            return f"[{progress.confirming}] confirmation of {event['name']}: {found}"
        case "died":
            return f"worker {worker.number} died ({event['how']}); its work is taken over"
    return ""


def workers_table(progress: Progress) -> Group:
    """Each worker with its trial, epoch and value; the study so far below."""
    table = Table()
    for column in ("worker", "doing", "epoch", "validation accuracy"):
        table.add_column(column)
    for worker in progress.workers:
        value = f"{worker.value:.4f}" if worker.value is not None else ""
        table.add_row(str(worker.number), worker.doing, str(worker.epoch or ""), value)
    return Group(table, Text(how_far(progress)))


def how_far(progress: Progress) -> str:
    """The study so far in one line."""
    counts = progress.counts
    words = [f"{counts.finished} of {progress.n_trials} trials finished ({counts})"]
    if progress.best_value is not None:
        words.append(f"best {progress.best_value:.4f}")
    if progress.confirming:
        words.append(f"confirmation {progress.confirming}")
    elif progress.seconds_left is not None:
        words.append(f"{progress.seconds_left:,.0f} s left")
    return ", ".join(words)


def dry_run(
    search: Search,
    prepared: runner.Prepared,
    execution: Execution,
    device: torch.device,
    workers: int,
) -> str:
    """The space, the budget, and the time that one measured epoch makes one expect."""
    experiment = search.study.experiment
    training = runner.training(prepared, execution, device)
    epochs = training.epochs()
    started = time.perf_counter()
    next(epochs)
    seconds = time.perf_counter() - started
    total = seconds * experiment.num_epochs * search.n_trials / workers
    space = describe_space(search.study) or {"": "what suggest(trial) asks for"}
    rows = {
        "experiment": str(experiment),
        **{f"search {name}": words for name, words in space.items()},
        "budget": (
            f"{search.n_trials} trials of {number_of(experiment.num_epochs, 'epoch')}, "
            "no pruning counted"
        ),
        "sampler": f"{search.sampler}, seed {search.sampler_seed}; pruner {search.pruner}",
        "workers": f"{workers} with {execution.threads} threads on {device}",
        "images": f"{len(prepared.train):,} to train on, {len(prepared.evaluation):,} to select on",
        "one epoch": f"{seconds:.2f} s, measured alone",
        "estimate": f"{total / 60:.1f} min, and the confirmation after it",
        "recorded in": described(),
    }
    width = max(map(len, rows))
    return "\n".join([search.study_name, *(f"  {k:<{width}}  {v}" for k, v in rows.items())])


def again() -> str:
    """The command that goes on with the study: the one that began it."""
    return provenance.command(tuple(sys.argv))
