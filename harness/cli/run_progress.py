"""What a person sees of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

from harness.base.formatting import number_of
from harness.base.statistics import Summary
from harness.runs.runner import Prepared, RunResult, Watcher
from harness.training.loop import EpochResult, Training

KINDS = ("loss", "accuracy")

DIVERGED = "The loss is not finite: a smaller --lr may help, or smaller initial weights."


class Quiet:
    """Shows nothing."""

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over."""

    def stopped(self) -> None:
        """The training is over."""


class Lines:
    """One line an epoch."""

    def __init__(self) -> None:
        self.num_epochs = 0

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""
        self.num_epochs = training.experiment.num_epochs

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over."""
        print(epoch_line(result, self.num_epochs), flush=True)

    def stopped(self) -> None:
        """The training is over."""


class Live(Lines):
    """The same lines above a bar that moves within the epochs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.progress: _ImagesProgress | None = None

    def started(self, training: Training, run_id: str) -> None:
        """A training is about to begin."""
        super().started(training, run_id)
        self.progress = _ImagesProgress(training, self.console)
        self.progress.start()

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over."""
        self.console.print(epoch_line(result, self.num_epochs), highlight=False)

    def stopped(self) -> None:
        """Take the bar away."""
        if self.progress:
            self.progress.stop()


class _ImagesProgress(Progress):
    """A bar over all images of all epochs, read from the training whenever it is drawn."""

    def __init__(self, training: Training, console: Console) -> None:
        self.training = training
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
        )
        total = len(training.train_images) * training.experiment.num_epochs
        self.add_task("", total=total, completed=training.images_seen, speed="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bring the bar up to date, then draw it."""
        for task in self.tasks:
            self._advance_to_now(task)
        return super().get_renderables()

    def _advance_to_now(self, task: Task) -> None:
        done, history = len(self.training.history), self.training.history
        total = self.training.experiment.num_epochs
        last = f"loss {history[-1].metrics['train/loss']:.4f}" if history else ""
        speed = f"{task.speed:,.0f} images/s" if task.speed else ""
        self.update(
            task.id,
            completed=self.training.images_seen,
            description=f"epoch {min(done + 1, total)}/{total} {last}",
            speed=speed,
        )


def watcher(quiet: bool) -> Watcher:
    """The watcher for this standard output: a live one only where it is a terminal."""
    if quiet:
        return Quiet()
    return Live(Console()) if sys.stdout.isatty() else Lines()


def epoch_line(result: EpochResult, num_epochs: int) -> str:
    """One line about an epoch: losses, accuracies, speed, seconds."""
    metrics = result.metrics
    on = next((part for part in ("test", "validation") if f"{part}/loss" in metrics), "train")
    seconds = metrics["time/train_seconds"] + metrics["time/evaluate_seconds"]
    width = len(str(num_epochs))
    return (
        f"epoch {result.epoch:>{width}}/{num_epochs}"
        f"  train loss {metrics['train/loss']:.4f} accuracy {metrics['train/accuracy']:.4f}"
        f"  {on} loss {metrics[f'{on}/loss']:.4f} accuracy {metrics[f'{on}/accuracy']:.4f}"
        f"  {metrics['time/images_per_second']:>9,.0f} images/s  {seconds:.2f} s"
    )


def summary(result: RunResult, prepared: Prepared) -> str:
    """How a run ended, in two lines: final metrics with their n, then device and time."""
    experiment, metrics = prepared.experiment, result.metrics
    on = prepared.evaluated_on
    figures = (
        f"{on} accuracy {metrics[f'{on}/accuracy']:.4f}, loss {metrics[f'{on}/loss']:.4f} "
        f"({len(prepared.evaluation):,} images, n = 1 seed)"
    )
    lines = [
        f"{experiment}: {result.outcome} after {number_of(len(result.epochs), 'epoch')}, {figures}",
        f"{experiment.dataset} on {result.device}, {result.seconds:.1f} s",
    ]
    if result.outcome == "diverged":
        lines.append(DIVERGED)
    return "\n".join(lines)


def group_summary(
    results: Sequence[RunResult], summaries: dict[str, Summary], prepared: Prepared
) -> str:
    """Mean, standard deviation and interval of a group's final metrics, one a line."""
    names = [f"{part}/{kind}" for part in ("train", prepared.evaluated_on) for kind in KINDS]
    width = max(map(len, names))
    seconds = sum(result.seconds for result in results)
    lines = [
        f"{prepared.experiment}: {len(results)} seeds on {prepared.experiment.dataset}",
        *(f"  {name:<{width}}  {summaries[name]}" for name in names),
        f"{results[0].device}, {seconds:.1f} s",
    ]
    if diverged := [result for result in results if result.outcome == "diverged"]:
        lines.append(f"{len(diverged)} of {len(results)} diverged. {DIVERGED}")
    return "\n".join(lines)
