"""What a person sees of a study: a live table of workers on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.base.command_line import go_on
from harness.base.formatting import harmless, metric_text, number_of
from harness.base.trials import metric_in_words
from harness.cli.output import print_text
from harness.workers.progress import StudyProgress, StudyView, TrainingEnded
from harness.workers.study_answer import StudyAnswer


class QuietStudy(StudyView):
    """Shows what the user must know, and nothing else."""

    def note(self, text: str) -> None:
        """Print it."""
        print_text(text)


class StudyLines(QuietStudy):
    """Prints a line for each trial and confirmation that ends."""

    def opened(self, code: str) -> None:
        """Print what has changed since the commit."""
        if code:
            self.note(code)

    def started(self, progress: StudyProgress) -> None:
        """Print what begins."""
        self.note(heading(progress))

    def trial_ended(self, progress: StudyProgress, trial: TrainingEnded) -> None:
        """Print the trial."""
        self.note(trial_line(progress, trial))

    def confirmed(self, progress: StudyProgress, confirmation: TrainingEnded) -> None:
        """Print the confirmation."""
        self.note(confirmation_line(progress, confirmation))

    def worker_died(self, progress: StudyProgress, reason: str) -> None:
        """Print what happened."""
        self.note(f"{reason}; its training is queued again")


class LiveStudy(StudyLines):
    """Prints the same lines above a live table of the workers."""

    def __init__(self) -> None:
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(harmless(text, lines=True), highlight=False, markup=False, emoji=False)

    def started(self, progress: StudyProgress) -> None:
        """Print what begins, and show the table."""
        super().started(progress)
        self.changed(progress)
        self.live.start()

    def changed(self, progress: StudyProgress) -> None:
        """Redraw the table."""
        self.live.update(workers_table(progress))

    def trial_ended(self, progress: StudyProgress, trial: TrainingEnded) -> None:
        """Print the trial and redraw the table."""
        super().trial_ended(progress, trial)
        self.changed(progress)

    def confirmed(self, progress: StudyProgress, confirmation: TrainingEnded) -> None:
        """Print the confirmation and redraw the table."""
        super().confirmed(progress, confirmation)
        self.changed(progress)

    def stopped(self) -> None:
        """Take the table away."""
        self.live.stop()


def study_view(quiet: bool) -> StudyView:
    """Shows a study on this standard output: live only if it is a terminal."""
    if quiet:
        return QuietStudy()
    return LiveStudy() if sys.stdout.isatty() else StudyLines()


def heading(progress: StudyProgress) -> str:
    """One line about what begins."""
    return (
        f"{progress.counts.finished} of {progress.n_trials} trials finished; "
        f"starting {number_of(len(progress.workers), 'worker')}"
    )


def trial_line(progress: StudyProgress, trial: TrainingEnded) -> str:
    """One line about a trial that has ended."""
    value = ", ".join(map(metric_text, trial.values.values())) or "no value"
    reason = f" ({' '.join(trial.reason.split())})" if trial.reason else ""
    best = "" if progress.best_value is None else f"; best {metric_text(progress.best_value)}"
    return (
        f"[{trial.place}/{progress.n_trials}] {trial.name}: {trial.outcome}, {value} "
        f"after {number_of(trial.num_epochs, 'epoch')}{reason}{best}"
    )


def confirmation_line(progress: StudyProgress, confirmation: TrainingEnded) -> str:
    """One line about a confirmation that has ended."""
    found = ", ".join(
        f"{metric_in_words(name)} {metric_text(value)}"
        for name, value in confirmation.values.items()
    )
    found = found if confirmation.outcome == "completed" else confirmation.outcome
    return f"[{progress.confirming}] confirmation of {confirmation.name}: {found}"


def workers_table(progress: StudyProgress) -> Group:
    """Each worker with its training, epoch and value; the study so far below."""
    table = Table()
    for column in ("worker", "doing", "epoch", metric_in_words(progress.goals[0].metric)):
        table.add_column(Text(harmless(column)))
    for number, worker in enumerate(progress.workers):
        value = "" if worker.value is None else metric_text(worker.value)
        cells = (str(number), harmless(worker.doing), str(worker.epoch or ""), value)
        table.add_row(*map(Text, cells))
    return Group(table, Text(how_far(progress)))


def how_far(progress: StudyProgress) -> str:
    """The study so far in one line."""
    counts = progress.counts
    words = [f"{counts.finished} of {progress.n_trials} trials finished ({counts})"]
    if progress.best_value is not None:
        words.append(f"best {metric_text(progress.best_value)}")
    if progress.confirming:
        words.append(f"confirmation {progress.confirming}")
    elif progress.seconds_left is not None:
        words.append(f"{progress.seconds_left:,.0f} s left")
    return ", ".join(words)


def answer_text(answer: StudyAnswer, was_finished: bool) -> str:
    """What a study came to, and how to see it or to go on with it.

    Args:
        was_finished: whether the study had nothing left to do.
    """
    lines = [answer.on_screen()]
    if was_finished:
        lines.insert(
            0,
            f"{answer.search.study_name} has finished already; "
            "a larger --n-trials goes on with it.",
        )
    elif not answer.is_finished:
        lines.append(f"Go on with the same command: {go_on(answer.command)}")
    return "\n".join(lines)
