"""The report of a study, from its stored trials, its answer and its record."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.base import project, provenance
from harness.base.errors import BadRequest
from harness.base.project import ROOT
from harness.base.statistics import Summary, expected_maximum, summarize
from harness.figures import study_figures
from harness.reporting import checklist
from harness.reporting.checklist import duration
from harness.reporting.page import (
    Block,
    Checklist,
    Column,
    Fact,
    Item,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    Value,
    Verdict,
    Warnings,
    render,
)
from harness.search.importance import FEWEST_TRIALS, importances
from harness.search.results import rows
from harness.search.storage import StoredStudy
from harness.tracking.reader import Reader
from harness.tracking.schema import StoredRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answer = Mapping[str, Any]
"""What `study.json` holds: see `harness.workers.study_answer.StudyResult.answer`."""


def report(stored: StoredStudy, answer: Answer, reader: Reader, drawn: Mapping[str, Figure]) -> str:
    """The report of a study with a completed trial, as HTML.

    Args:
        drawn: the study's figures by name, as `harness.figures.study_figures.draw` makes them.
    """
    run = reader.run(stored.user_attrs["run_id"])
    confirmations = []
    for confirmation in answer["confirmed"].values():
        with contextlib.suppress(BadRequest):  # a run may have been deleted since
            confirmations += [reader.run(run_id) for run_id in confirmation["run_ids"][:1]]
    path = ROOT / "studies" / f"{run.tag('study') or stored.study_name}.py"
    sizes = [_sizes(reader, run.run_id) for run in (run, *confirmations)]
    told = _Report(stored, answer, run, confirmations, sizes, drawn)
    page = Page(
        title=answer["study"],
        kind=f"Study of {told.experiment} on {told.fields['dataset']}",
        question=project.summary(path) if path.is_file() else "",
        facts=told.facts(),
        sections=[
            Section("Answer", told.answered()),
            Section("Space and budget", told.searched()),
            Section("Course of the search", told.course()),
            Section("What mattered", told.mattered()),
            Section("All trials", [told.trials_table()]),
            Section("Reproducibility", [Checklist(told.checklist())]),
            Section("Repeat it", told.repeat()),
        ],
    )
    return render(page)


def _sizes(reader: Reader, run_id: str) -> dict[str, int]:
    """How many images a run saw, by `training`, `validation` and `test`."""
    description = json.loads(reader.artifact(run_id, "experiment.json") or b"{}")
    return {part["context"]: part["size"] for part in description.get("data", [])}


class _Report:
    def __init__(
        self,
        stored: StoredStudy,
        answer: Answer,
        run: StoredRun,
        confirmations: Sequence[StoredRun],
        sizes: Sequence[Mapping[str, int]],
        drawn: Mapping[str, Figure],
    ) -> None:
        self.stored, self.answer, self.run = stored, answer, run
        self.confirmations, self.sizes, self.drawn = confirmations, sizes, drawn
        self.rows = rows(stored)
        self.best, self.defaults = answer["best"], answer["defaults"]
        self.experiment = answer["declaration"]["experiment"]
        self.fields = answer["declaration"]["fields"]
        self.confirmed = answer["confirmed"]
        self.seeds = (
            list(next(iter(self.confirmed.values()))["test_accuracy"]) if self.confirmed else []
        )
        self.counts = answer["counts"]
        self.finished = sum(
            self.counts[name] for name in ("completed", "pruned", "diverged", "failed")
        )
        self.names = list(
            dict.fromkeys([*self.defaults, *(name for row in self.rows for name in row["params"])])
        )

    def facts(self) -> list[Fact]:
        facts = [
            Fact("Trials finished", f"{self.finished}{self._of_all()}", self._outcomes()),
            Fact(
                "Best validation accuracy",
                f"{self.best['validation_accuracy']:.4f}",
                "n = 1 seed, selected as the highest",
            ),
        ]
        for config, confirmation in self.confirmed.items():
            found = _summary(confirmation)
            spread = f"± {found.std:.4f}, " if found.n > 1 else ""
            name = f"Test accuracy, {config}"
            facts.append(Fact(name, f"{found.mean:.4f}", f"{spread}n = {found.n}"))
        if difference := self._difference():
            low, high = 100 * difference.low, 100 * difference.high
            interval = f"95%: {low:+.2f} to {high:+.2f}, " if difference.n > 1 else ""
            points = f"{100 * difference.mean:+.2f} points"
            facts.append(Fact("Difference", points, f"{interval}n = {difference.n}"))
        total, _ = self._compute_time()
        return [
            *facts,
            Fact("Compute time", total, "summed over workers"),
            Fact("Device", self.answer["device"], self.run.tag("device_name") or ""),
        ]

    def answered(self) -> list[Block]:
        blocks: list[Block] = (
            [Verdict(self.answer["verdict"])]
            if self.confirmed
            else [
                Text(
                    "The best configuration has not been confirmed on the test set: what follows "
                    "rests on the validation images that it was selected on."
                )
            ]
        )
        values = ", ".join(f"{name} = {_words(v)}" for name, v in self.best["parameters"].items())
        blocks.append(
            Text(
                f"The best is trial {self.best['trial']}: {values}. Its validation accuracy of "
                f"{self.best['validation_accuracy']:.4f} (n = 1 seed) is the highest of "
                f"{self.counts['completed']} completed trials, and flatters it for that reason: "
                "what it is worth is its test accuracy, of trainings that nothing was selected on."
            )
        )
        if warnings := [*self.answer["warnings"], *self._went_on()]:
            blocks.append(Warnings(warnings))
        if self.confirmed:
            blocks.append(self._configurations())
            blocks += self._pictures("confirmation")
        return blocks

    def searched(self) -> list[Block]:
        space = self.answer["declaration"]["space"]
        names = list(dict.fromkeys([*self.names, *(n for n in space if n != "suggest(trial)")]))
        table = Table(
            "Searched values",
            [Column("parameter"), Column("searched"), Column("default"), Column("best")],
            [
                [
                    name,
                    space.get(name, "as the study's suggest(trial) asks"),
                    *(
                        _words(values[name]) if name in values else None
                        for values in (self.defaults, self.best["parameters"])
                    ),
                ]
                for name in names
            ],
        )
        answer, fields = self.answer, self.fields
        others = ", ".join(
            f"{name} = {_words(value)}" for name, value in fields.items() if name not in names
        )
        return [
            table,
            Text(
                f"{self.finished}{self._of_all()} trials ({self._outcomes()}), each of "
                f"{fields['num_epochs']} epochs unless it was pruned. Sampler {answer['sampler']} "
                f"(seed {answer['sampler_seed']}), pruner {answer['pruner']}. "
                "Trial 0 is the experiment's own configuration."
                f"\n\nThe same in all trials: {others}."
            ),
        ]

    def course(self) -> list[Block]:
        blocks = self._pictures("optimization_history", "learning_curves")
        values = study_figures.drawn_values(self.stored, self.defaults)
        if len(values) < 2:
            return blocks
        expected = expected_maximum(values)
        shown = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n < len(values)]
        sampler = self.answer["sampler"]
        independent = (
            "The sampler was random, so the trials were drawn so."
            if sampler == "random"
            else f"The sampler was {sampler}, which does not draw so: read it as a summary of "
            "these trials, not as a forecast of what fewer of them would have found."
        )
        return [
            *blocks,
            *self._pictures("expected_best"),
            Text(
                "Expected validation performance (Dodge et al., Show Your Work, EMNLP 2019): the "
                "mean of the best validation accuracy among n draws from the "
                f"{len(values)} trials that the sampler chose (without the defaults; pruned trials "
                "with the accuracy of their last epoch, diverged ones with 0). It assumes "
                f"independent draws. {independent}"
            ),
            Table(
                "Expected best validation accuracy",
                [Column("trials"), Column("mean", ".4f"), Column("standard deviation", ".4f")],
                [[n, *expected[n - 1]] for n in [*shown, len(values)]],
            ),
        ]

    def mattered(self) -> list[Block]:
        blocks: list[Block] = []
        if ranked := importances(self.stored):
            blocks += [
                *self._pictures("importances"),
                Table(
                    "Relative importance by PED-ANOVA, of the completed trials",
                    [Column("parameter"), Column("importance", ".2f")],
                    [[name, value] for name, value in ranked.items()],
                ),
            ]
        elif len(self.names) > 1:
            blocks.append(
                Text(
                    f"Importances need {FEWEST_TRIALS} completed trials: with fewer they are noise."
                )
            )
        return [*blocks, *self._pictures("slices", "contour", "parallel_coordinates")]

    def trials_table(self) -> Table:
        columns = [
            *(Column("trial"), Column("outcome"), Column("validation accuracy", ".4f")),
            *(Column(name, self._digits(name)) for name in self.names),
            *(Column("epochs"), Column("seconds", ".1f"), Column("training seconds", ".1f")),
            Column("note"),
        ]
        table = []
        for row in self.rows:
            retry = row["retry_of"]
            note = row["reason"] or ("" if retry is None else f"trial {retry} again")
            value: list[Value] = [row["number"], row["outcome"], row["value"]]
            value += [_cell(row["params"].get(name)) for name in self.names]
            value += [row["num_epochs"], row["seconds"], row["training_seconds"], note or None]
            table.append(value)
        if not any(row[-1] for row in table):
            columns.pop()
            table = [row[:-1] for row in table]
        caption = f"All {len(table)} trials; a click on a column's name sorts them"
        return Table(caption, columns, table, sortable=True)

    def checklist(self) -> list[Item]:
        answer, fields = self.answer, self.fields
        runs = [self.run, *self.confirmations]
        owners = {row["owner"] for row in self.rows if row["owner"]}
        total, parts = self._compute_time()
        space = answer["declaration"]["space"]
        interrupted = sum(row["outcome"] == "interrupted" for row in self.rows)
        seeds = f"{len(self.seeds)} for the confirmation ({', '.join(self.seeds)})"
        return [
            Item(
                "Measure",
                "selected by validation accuracy after the last epoch, one seed a trial; "
                "reported: test accuracy of trainings on all training images",
            ),
            checklist.data(
                (f"{what} on {fields['dataset']}", context, sizes.get(context), digest)
                for what, run, sizes in zip(
                    ("trials", *["confirmation"] * len(self.confirmations)),
                    runs,
                    self.sizes,
                    strict=True,
                )
                for context, digest in run.data.items()
            ),
            Item(
                "Split",
                f"{fields['validation_size']:,} training images set aside for validation, drawn by "
                f"split_seed {fields['split_seed']}, the same in every trial; "
                "no trial was given the test images",
            ),
            Item(
                "Seeds",
                f"{fields['seed']} in every trial, {answer['sampler_seed']} for the sampler, "
                + (seeds if self.seeds else "no confirmation"),
                len(self.seeds) > 1,
            ),
            Item(
                "Search space",
                "\n".join(f"{name}: {words}" for name, words in space.items()),
            ),
            Item(
                "Choice of the best",
                "the completed trial with the highest validation accuracy, the earliest among "
                f"equals: trial {self.best['trial']}",
            ),
            Item(
                "Number of runs",
                f"{self.finished} trials ({self._outcomes()}"
                f"{f'; {interrupted} more interrupted and tried again' if interrupted else ''}); "
                f"{len(self.confirmed) * len(self.seeds)} confirmations "
                f"({len(self.confirmed)} configurations, {len(self.seeds)} seeds each)",
            ),
            Item("Compute time", f"{total}: {parts}"),
            Item(
                "Workers",
                f"{len(owners)} process{'' if len(owners) == 1 else 'es'} trained the trials"
                + (
                    ""
                    if len(owners) == 1
                    else "; which one is faster decides what the sampler knows, so the very same "
                    "trials come back with --workers 1 alone"
                ),
                len(owners) == 1,
            ),
            Item(
                "Uncertainty",
                "standard deviation over seeds (n - 1); 95% intervals of means and of the paired "
                "difference by Student's t",
                len(self.seeds) > 1,
            ),
            *checklist.environment([checklist.own_tags(run) for run in runs]),
        ]

    def repeat(self) -> list[Block]:
        commands = ["# the study", self._command()]
        for config, confirmation in self.confirmed.items():
            fields = confirmation["fields"]
            flags = ["--repeats", str(len(self.seeds))] if len(self.seeds) > 1 else []
            if threads := self.run.tag("threads"):
                flags += ["--threads", threads]
            command = provenance.run_command(
                self.experiment, {**fields, "seed": self.seeds[0], "validation_size": 0}, *flags
            )
            commands += [f"# {config}, on all training images", command]
        return [checklist.again((checklist.own_tags(self.run), command) for command in commands)]

    def _command(self) -> str:
        return str(self.answer.get("command") or self.run.command)

    def _of_all(self) -> str:
        return f" of {self.answer['n_trials']}" if self.answer["n_trials"] else ""

    def _outcomes(self) -> str:
        return checklist.counted(
            {name: self.counts[name] for name in ("completed", "pruned", "diverged", "failed")}
        )

    def _went_on(self) -> list[str]:
        now = sum(row["outcome"] in self.counts for row in self.rows) - sum(
            row["outcome"] in ("running", "waiting") for row in self.rows
        )
        if now == self.finished:
            return []
        return [
            f"{now} trials have finished by now, and the answer is that of {self.finished}: "
            "end the study to have it anew"
        ]

    def _difference(self) -> Summary | None:
        difference: dict[str, Any] = self.answer["difference"]
        known: dict[str, Any] = {n: math.nan if v is None else v for n, v in difference.items()}
        return Summary(**known) if known else None

    def _compute_time(self) -> tuple[str, str]:
        """The time of all trainings together, and its parts."""
        trials = sum(row["seconds"] or 0.0 for row in self.rows)
        training = sum(row["training_seconds"] or 0.0 for row in self.rows)
        parts = f"trials {duration(trials)}, of which training and evaluation {duration(training)}"
        seconds = [c.get("seconds") for c in self.confirmed.values()]
        if self.confirmed and None not in seconds:
            trials += sum(seconds)
            parts += f"; confirmations {duration(sum(seconds))}"
        return duration(trials), f"{parts}; summed over workers"

    def _configurations(self) -> Table:
        rows: list[list[Value]] = []
        for config, confirmation in self.confirmed.items():
            summary = _summary(confirmation)
            varied = [_cell(confirmation["fields"].get(name)) for name in self.names]
            rows.append([config, *varied, *_numbers(summary)])
        if difference := self._difference():
            rows.append(["difference", *(None for _ in self.names), *_numbers(difference)])
        return Table(
            "Test accuracy after training on all training images",
            [
                Column("configuration"),
                *(Column(name, self._digits(name)) for name in self.names),
                *(Column(name, ".4f") for name in ("mean", "std", "95% low", "95% high")),
                Column("n seeds"),
            ],
            rows,
        )

    def _digits(self, name: str) -> str:
        values = [row["params"].get(name) for row in self.rows]
        return ".4g" if any(isinstance(value, float) for value in values) else ""

    def _pictures(self, *names: str) -> list[Block]:
        found = [
            Picture(
                study_figures.svg(self.drawn[name]),
                ALTERNATIVES[name](self),
                wide=self.drawn[name].get_size_inches()[0] > 7,
            )
            for name in names
            if name in self.drawn
        ]
        return [Pictures(found)] if found else []


def _summary(confirmation: Mapping[str, Any]) -> Summary:
    return summarize(list(confirmation["test_accuracy"].values()))


def _numbers(summary: Summary) -> list[Value]:
    return [summary.mean, summary.std, summary.low, summary.high, summary.n]


def _words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> Value:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _most_important(report: _Report) -> str:
    ranked = importances(report.stored)
    shares = ", ".join(f"{name} {value:.2f}" for name, value in ranked.items())
    return f"Bars of relative importance by PED-ANOVA: {shares}."


ALTERNATIVES: Mapping[str, Callable[[_Report], str]] = {
    "confirmation": lambda r: (
        "Test accuracy of each seed, and its mean with a 95% interval: "
        + "; ".join(f"{name} {_summary(c)}" for name, c in r.confirmed.items())
        + "."
    ),
    "optimization_history": lambda r: (
        f"Validation accuracy by trial, {len(r.rows)} trials; the best so far rises to "
        f"{r.best['validation_accuracy']:.4f} at trial {r.best['trial']}."
    ),
    "learning_curves": lambda r: (
        "Validation accuracy by epoch: a line for each completed and each pruned trial, the best "
        f"one in front, which ends at {r.best['validation_accuracy']:.4f}."
    ),
    "expected_best": lambda r: (
        "Expected best validation accuracy by number of trials, with one standard deviation; the "
        "table below has its numbers."
    ),
    "importances": _most_important,
    "slices": lambda r: (
        f"Validation accuracy by the value of {', '.join(r.names)}, one panel each; the best is a "
        "star, the experiment's own value a line."
    ),
    "contour": lambda r: (
        f"Validation accuracy over {' and '.join(r.names[:2])}, as colour on a surface through the "
        "completed trials."
    ),
    "parallel_coordinates": lambda r: (
        f"A line for each completed trial through its values of {', '.join(r.names)}, coloured by "
        "validation accuracy."
    ),
}
"""What each figure shows, in words."""
