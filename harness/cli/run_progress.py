"""What a person sees of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

from harness.base.formatting import metric_text, number_of, value_text
from harness.base.metric_names import AVERAGE, averages, judge, observations, quantities
from harness.execution.driver import Callback
from harness.execution.events import Begun, Ending
from harness.execution.launch import GroupResult, RunResult
from harness.execution.steadiness import jump_in_words
from harness.execution.training_group import LocalGroup, TrainingGroup
from harness.tracking.schema import DataRecord, Outcome
from harness.training.loop import EpochResult

ADVICE: dict[Outcome, str] = {
    "diverged": "The loss is not finite: a smaller --lr may help, or smaller initial weights.",
    "collapsed": "Nothing was learned: another --lr may help, or other initial weights.",
}
"""What may help, by the outcome of a run that failed to learn."""


class EpochLines(Callback):
    """Prints a line for each epoch."""

    def __init__(self, num_epochs: int) -> None:
        self.num_epochs = num_epochs

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Print the epoch."""
        print(epoch_line(result, self.num_epochs), flush=True)
        return None


class LiveEpochs(Callback):
    """Prints the same lines above a bar that moves within the epochs."""

    def __init__(self, num_epochs: int, group: LocalGroup) -> None:
        self.num_epochs, self.group = num_epochs, group
        self.console = Console()
        self.bar: _ImagesBar | None = None

    def begun(self, event: Begun) -> None:
        """Show the bar."""
        assert self.group.training
        size = self.group.training.examples_per_epoch
        self.bar = _ImagesBar(self.group, size, self.num_epochs, self.console)
        self.bar.start()

    def epoch(self, result: EpochResult) -> Outcome | None:
        """Print the epoch."""
        self.console.print(
            epoch_line(result, self.num_epochs), highlight=False, markup=False, emoji=False
        )
        return None

    def ended(self, ending: Ending) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()


class _ImagesBar(Progress):
    """A bar over all examples of all epochs, read from the training whenever it is drawn."""

    def __init__(self, group: LocalGroup, size: int, num_epochs: int, console: Console) -> None:
        self.group, self.num_epochs = group, num_epochs
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
        )
        self.add_task("", total=size * num_epochs, completed=self._images_seen, speed="")

    @property
    def _images_seen(self) -> int:
        return self.group.training.examples_seen if self.group.training else 0

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bring the bar up to date, then draw it."""
        for task in self.tasks:
            self._advance_to_now(task)
        return super().get_renderables()

    def _advance_to_now(self, task: Task) -> None:
        history = self.group.training.history if self.group.training else []
        last = f"loss {metric_text(history[-1].metrics['train/loss'])}" if history else ""
        speed = f"{task.speed:,.0f} examples/s" if task.speed else ""
        self.update(
            task.id,
            completed=self._images_seen,
            description=f"epoch {min(len(history) + 1, self.num_epochs)}/{self.num_epochs} {last}",
            speed=speed,
        )


def epochs_view(group: TrainingGroup, num_epochs: int, *, quiet: bool) -> Callback:
    """Shows epochs on this standard output: live only if it is a terminal."""
    if quiet:
        return Callback()
    if sys.stdout.isatty() and isinstance(group, LocalGroup):
        return LiveEpochs(num_epochs, group)
    return EpochLines(num_epochs)


def epoch_line(result: EpochResult, num_epochs: int) -> str:
    """One line about an epoch: losses, metrics, observations, speed, seconds."""
    metrics = result.metrics
    part, names = judge(metrics), quantities(metrics)
    sets = [("train", "train/", names)]
    if part:
        sets.append((part, f"{part}/", names))
        sets.append(("average", f"{part}/{AVERAGE}", averages(metrics)))
    measured = [
        f"  {word} " + " ".join(f"{name} {metric_text(metrics[prefix + name])}" for name in shown)
        for word, prefix, shown in sets
        if shown
    ]
    observed = "".join(f"  {name} {value_text(metrics[name])}" for name in observations(metrics))
    seconds = metrics["time/train_seconds"] + metrics["time/evaluate_seconds"]
    width = len(str(num_epochs))
    return (
        f"epoch {result.epoch:>{width}}/{num_epochs}"
        f"{''.join(measured)}{observed}"
        f"  {metrics['time/examples_per_second']:>9,.0f} examples/s  {seconds:.2f} s"
    )


def summary(result: RunResult | GroupResult) -> str:
    """How a run, or a group of seeds, has ended."""
    return _of_run(result) if isinstance(result, RunResult) else _of_group(result)


def _of_run(result: RunResult) -> str:
    """How a run ended, in two lines: final metrics with their n, then device and time."""
    metrics, evaluated = result.metrics, _evaluated(result)
    on = evaluated.context
    loss, *others = quantities(metrics)
    values = ", ".join(f"{name} {metric_text(metrics[f'{on}/{name}'])}" for name in (*others, loss))
    if averages(metrics):
        of_average = [
            f"{name} {metric_text(metrics[f'{on}/{AVERAGE}{name}'])}" for name in (*others, loss)
        ]
        values += f"; averaged weights {', '.join(of_average)}"
    figures = f"{on} {values} ({evaluated.size:,} examples, n = 1 seed)"
    lines = [
        f"{result.experiment}: {result.outcome} after {number_of(len(result.epochs), 'epoch')}, "
        f"{figures}",
        f"{evaluated.name} on {result.device}, {result.seconds:.1f} s",
    ]
    if result.outcome in ADVICE:
        lines.append(ADVICE[result.outcome])
    elif deviation := result.jump:
        lines.append(jump_in_words(result.experiment, deviation))
    return "\n".join(lines)


def _of_group(group: GroupResult) -> str:
    """Mean, standard deviation and interval of a group's final metrics, one a line."""
    results: Sequence[RunResult] = group.results
    first = results[0]
    on = _evaluated(first).context
    names = [f"{part}/{name}" for part in ("train", on) for name in quantities(first.metrics)]
    names += [f"{on}/{AVERAGE}{name}" for name in averages(first.metrics)]
    width = max(map(len, names))
    seconds = sum(result.seconds for result in results)
    lines = [
        f"{first.experiment}: {len(results)} seeds on {_evaluated(first).name}",
        *(f"  {name:<{width}}  {group.summaries[name]}" for name in names),
        f"{first.device}, {seconds:.1f} s",
    ]
    for outcome, advice in ADVICE.items():
        if number := sum(result.outcome == outcome for result in results):
            lines.append(f"{number} of {len(results)} {outcome}. {advice}")
    if jumps := [result.jump for result in results if result.jump]:
        words = jump_in_words(first.experiment, max(jumps))
        lines.append(f"{len(jumps)} of {len(results)} jump: at most, {words}")
    return "\n".join(lines)


def _evaluated(result: RunResult) -> DataRecord:
    return next(part for part in result.data if part.context != "training")
