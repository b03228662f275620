"""The report of a study, from its trials, its answer and its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.base import discovery, project
from harness.base.command_line import command_text, run_arguments
from harness.base.formatting import capitalized, duration, metric_text, number_of, value_text
from harness.base.goals import Direction
from harness.base.statistics import Summary, summarize
from harness.base.trials import (
    CONDITION,
    INFEASIBLE,
    TrialRow,
    confirmed_metric,
    expected_best,
    metric_in_words,
    sampled_values,
)
from harness.figures import style
from harness.reporting import checklist
from harness.reporting.page import (
    Block,
    Checklist,
    Fact,
    Item,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    TableColumn,
    Text,
    Value,
    VerdictBox,
    WarningList,
    render,
)
from harness.search.importance import FEWEST_TRIALS
from harness.tracking.schema import StoredRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answer = Mapping[str, Any]
"""The content of `study.json`; see `harness.workers.study_answer.StudyResult.answer`."""

FINISHED_OUTCOMES = ("completed", "pruned", *INFEASIBLE, "failed")


def study_html(
    answer: Answer,
    rows: Sequence[TrialRow],
    run: StoredRun,
    confirmations: Sequence[StoredRun],
    figures: Mapping[str, Figure],
) -> str:
    """The report of a study that has a completed trial, as HTML.

    Args:
        run: the run of the study itself.
        confirmations: one run of each confirmed configuration that still exists.
        figures: by name, from `harness.figures.study_figures.draw_study`.
    """
    path = (
        project.root() / "studies" / f"{checklist.own_tags(run).get('study', answer['study'])}.py"
    )
    content = _Content(answer, rows, run, confirmations, figures)
    page = Page(
        title=answer["study"],
        kind=f"Study of {content.experiment} on {run.dataset}",
        question=discovery.first_line(path) if path.is_file() else "",
        facts=content.facts(),
        sections=[
            Section("Answer", content.answered()),
            Section("Space and budget", content.searched()),
            Section("Course of the search", content.course()),
            Section("What mattered", content.mattered()),
            Section("All trials", [content.trials_table()]),
            Section("Reproducibility", [Checklist(content.checklist())]),
            Section("Repeat it", content.repeat()),
        ],
    )
    return render(page)


class _Content:
    def __init__(
        self,
        answer: Answer,
        rows: Sequence[TrialRow],
        run: StoredRun,
        confirmations: Sequence[StoredRun],
        figures: Mapping[str, Figure],
    ) -> None:
        self.answer, self.rows, self.run = answer, rows, run
        self.confirmations, self.figures = confirmations, figures
        self.tags = checklist.own_tags(run)
        self.objectives = [metric_in_words(goal["metric"]) for goal in answer["objectives"]]
        self.confirming = [confirmed_metric(goal["metric"]) for goal in answer["objectives"]]
        self.objective = " and ".join(self.objectives)
        self.reported = " and ".join(map(metric_in_words, self.confirming))
        self.direction: Direction = answer["objectives"][0]["direction"]
        self.extreme = "highest" if self.direction == "maximize" else "lowest"
        self.chosen, self.defaults = answer["chosen"], answer["defaults"]
        self.is_front = len(self.objectives) > 1
        self.importances: Mapping[str, float] = answer["importances"]
        self.experiment = answer["declaration"]["experiment"]
        self.fields = answer["declaration"]["fields"]
        self.confirmed: Mapping[str, Any] = answer["confirmed"]
        self.seeds = next(
            (list(c["values"][self.confirming[0]]) for c in self.confirmed.values()), []
        )
        # An older answer does not know every outcome.
        self.counts = {
            outcome: answer["counts"].get(outcome.replace(" ", "_"), 0)
            for outcome in FINISHED_OUTCOMES
        }
        self.finished = sum(self.counts.values())
        self.names = list(
            dict.fromkeys([*self.defaults, *(name for row in rows for name in row.params)])
        )

        completed = [row for row in rows if row.outcome == "completed" and row.values]
        self.shared = [name for name in self.names if all(name in r.params for r in completed)]
        space = answer["declaration"]["space"]
        asked = {name: space.get(name, "").rpartition(CONDITION) for name in self.names}
        self.conditions = [
            f"{name} (if {when})" if mark else name for name, (_, mark, when) in asked.items()
        ]

    def facts(self) -> list[Fact]:
        facts = [Fact("Trials finished", f"{self.finished}{self._of_all()}", self._outcomes())]
        if self.is_front:
            facts.append(Fact("Front", number_of(len(self.chosen), "trial"), self.objective))
        else:
            value = metric_text(self.chosen[0]["values"][0])
            selected = f"n = 1 seed, selected as the {self.extreme}"
            facts.append(Fact(f"Best {self.objective}", value, selected))
            for config, confirmation in self.confirmed.items():
                found = _summary(confirmation, self.confirming[0])
                spread = f"± {metric_text(found.std)}, " if found.n > 1 else ""
                name = f"{capitalized(self.reported)}, {config}"
                facts.append(Fact(name, metric_text(found.mean), f"{spread}n = {found.n}"))
        if difference := self.answer["difference"]:
            interval = ""
            if difference["low"] is not None:
                interval = f"95%: {difference['low']:+.4f} to {difference['high']:+.4f}, "
            mean = "-" if difference["difference"] is None else f"{difference['difference']:+.4f}"
            facts.append(Fact("Difference", mean, f"{interval}n = {difference['n']}"))
        total, _ = self._compute_time()
        return [
            *facts,
            Fact("Compute time", total, "summed over workers"),
            Fact("Device", self.answer["device"], self.tags.get("device_name", "")),
        ]

    def answered(self) -> list[Block]:
        blocks: list[Block] = (
            [VerdictBox(self.answer["verdict"])]
            if self.confirmed
            else [
                Text(
                    "The best configuration has not been confirmed on the test set. Everything "
                    "below is based on the validation examples that it was selected on."
                )
            ]
        )
        blocks += self._front() if self.is_front else [Text(self._best())]
        if warnings := [*self.answer["warnings"], *self._continued()]:
            blocks.append(WarningList(warnings))
        if self.confirmed:
            blocks.append(self._configurations())
            confirming = (name for name in self.figures if name.startswith("confirmation"))
            blocks += self._pictures(*confirming)
        return blocks

    def _best(self) -> str:
        best = self.chosen[0]
        values = ", ".join(f"{name} = {value_text(v)}" for name, v in best["parameters"].items())
        return (
            f"The best is trial {best['trial']}: {values}. Its {self.objective} of "
            f"{metric_text(best['values'][0])} (n = 1 seed) is the {self.extreme} of "
            f"{self.counts['completed']} completed trials, and too optimistic for that reason. "
            f"Judge it by its {self.reported} instead, which no selection was based on."
        )

    def _front(self) -> list[Block]:
        rows = [
            [
                *(trial["trial"], *trial["values"]),
                *(_cell(trial["parameters"].get(name)) for name in self.names),
            ]
            for trial in self.chosen
        ]
        columns = [
            TableColumn("trial"),
            *(TableColumn(name, ".6g") for name in self.objectives),
            *(TableColumn(name, self._digits(name)) for name in self.names),
        ]
        return [
            Table("The front: no other trial beats these in all objectives", columns, rows),
            *self._pictures(*(name for name in self.figures if name.startswith("pareto_front"))),
            Text(
                "Each value is of one seed and was selected on the validation examples, so it is "
                f"too optimistic. Judge the trials by their {self.reported} instead."
            ),
        ]

    def searched(self) -> list[Block]:
        space = self.answer["declaration"]["space"]
        names = list(dict.fromkeys([*self.names, *space]))
        table = Table(
            "Searched values",
            [
                TableColumn("parameter"),
                TableColumn("searched"),
                TableColumn("default"),
                TableColumn("in the front" if self.is_front else "best"),
            ],
            [
                [
                    name,
                    space.get(name),
                    value_text(self.defaults[name]) if name in self.defaults else None,
                    ", ".join(
                        dict.fromkeys(
                            value_text(trial["parameters"][name])
                            for trial in self.chosen
                            if name in trial["parameters"]
                        )
                    ),
                ]
                for name in names
            ],
        )
        answer, fields = self.answer, self.fields
        others = ", ".join(
            f"{name} = {value_text(value)}" for name, value in fields.items() if name not in names
        )
        return [
            table,
            Text(
                f"{self.finished}{self._of_all()} trials ({self._outcomes()}), each of "
                f"{number_of(fields['num_epochs'], 'epoch')} unless pruned. "
                f"Sampler: {answer['sampler']} (seed {answer['sampler_seed']}). "
                f"Pruner: {answer['pruner']}. {self._limit()}Trial 0 has the default values."
                f"\n\nThe same in all trials: {others}."
            ),
        ]

    def _limit(self) -> str:
        seconds = self.answer.get("trial_timeout")
        return f"A trial was ended after {seconds:g} s. " if seconds else ""

    def course(self) -> list[Block]:
        blocks = self._pictures("optimization_history", "learning_curves")
        values = sampled_values(self.rows, self.defaults, self.direction)
        if len(values) < 2 or self.is_front:
            return blocks
        expected = expected_best(values, self.direction)
        shown = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n < len(values)]
        sampler = self.answer["sampler"]
        independent = (
            "The sampler was random, so they were independent."
            if sampler == "random"
            else f"The sampler was {sampler}, whose draws are not independent: read the table as a "
            "summary of these trials, not as a forecast of what fewer trials would find."
        )
        return [
            *blocks,
            *self._pictures("expected_best"),
            Text(
                "Expected validation performance (Dodge et al., Show Your Work, EMNLP 2019): the "
                f"mean of the best {self.objective} among n draws from the "
                f"{len(values)} trials that the sampler chose. The defaults do not count, a pruned "
                "trial counts with the value of its last epoch, one that diverged, collapsed or "
                "timed out with the worst of all others. The formula "
                f"assumes independent draws. {independent}"
            ),
            Table(
                f"Expected best {self.objective}",
                [
                    TableColumn("trials"),
                    TableColumn("mean", ".4f"),
                    TableColumn("standard deviation", ".4f"),
                ],
                [[n, *expected[n - 1]] for n in [*shown, len(values)]],
            ),
        ]

    def mattered(self) -> list[Block]:
        blocks: list[Block] = []
        if self.importances:
            blocks += [
                *self._pictures("importances"),
                Table(
                    "Relative importance by PED-ANOVA, of the completed trials",
                    [TableColumn("parameter"), TableColumn("importance", ".2f")],
                    [[name, value] for name, value in self.importances.items()],
                ),
            ]
        elif len(self.names) > 1:
            blocks.append(
                Text(
                    f"Importances need {FEWEST_TRIALS} completed trials; with fewer they are noise."
                )
            )
        slices = [name for name in self.figures if name.startswith("slices")]
        return [*blocks, *self._pictures(*slices, "contour", "parallel_coordinates")]

    def trials_table(self) -> Table:
        columns = [
            *(TableColumn("trial"), TableColumn("outcome")),
            *(TableColumn(name, ".6g" if self.is_front else ".4f") for name in self.objectives),
            *(TableColumn(name, self._digits(name)) for name in self.names),
            *(
                TableColumn("epochs"),
                TableColumn("seconds", ".1f"),
                TableColumn("training seconds", ".1f"),
            ),
            TableColumn("note"),
        ]
        table = []
        several_versions = len({row.version for row in self.rows}) > 1
        for row in self.rows:
            remarks = [
                row.reason,
                None if row.retry_of is None else f"repeats trial {row.retry_of}",
                f"code version {row.version}" if several_versions else None,
            ]
            note = "; ".join(filter(None, remarks)) or None
            values = row.values or [None] * len(self.objectives)
            cells: list[Value] = [row.number, row.outcome, *values]
            cells += [_cell(row.params.get(name)) for name in self.names]
            cells += [row.num_epochs, row.seconds, row.training_seconds, note]
            table.append(cells)
        if not any(row[-1] for row in table):
            columns.pop()
            table = [row[:-1] for row in table]
        caption = f"All {number_of(len(table), 'trial')}; click a column's name to sort"
        return Table(caption, columns, table, sortable=True)

    def checklist(self) -> list[Item]:
        answer, fields = self.answer, self.fields
        runs = [self.run, *self.confirmations]
        workers = {(row.owner, row.worker) for row in self.rows if row.worker is not None}
        total, parts = self._compute_time()
        space = answer["declaration"]["space"]
        interrupted = sum(row.outcome == "interrupted" for row in self.rows)
        seeds = f"{len(self.seeds)} for the confirmation ({', '.join(self.seeds)})"
        return [
            Item(
                "Measure",
                f"selected by {self.objective} after the last epoch, one seed per trial; "
                f"reported: {self.reported} after training on all training examples",
            ),
            checklist.data_item(
                (
                    f"{'trials' if run is self.run else 'confirmation'} on {part.name}",
                    *(part.context, part.size, part.digest),
                )
                for run in runs
                for part in run.data_records
            ),
            Item(
                "Split",
                f"{fields['validation_size']:,} training examples set aside for validation, drawn "
                f"{'from each class in proportion ' if fields['stratify'] else ''}by split_seed "
                f"{fields['split_seed']}, the same in every trial; no trial used the test examples",
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
                f"the completed trials that no other one beats in {self.objective}: "
                + ", ".join(f"trial {trial['trial']}" for trial in self.chosen)
                if self.is_front
                else f"the completed trial with the {self.extreme} {self.objective}, the earliest "
                f"of equals: trial {self.chosen[0]['trial']}",
            ),
            Item(
                "Number of runs",
                f"{self.finished} trials ({self._outcomes()}"
                f"{f'; {interrupted} more interrupted and repeated' if interrupted else ''}); "
                f"{len(self.confirmed) * len(self.seeds)} confirmations "
                f"({len(self.confirmed)} configurations, {len(self.seeds)} seeds each)",
            ),
            Item("Compute time", f"{total}: {parts}"),
            Item(
                "Workers",
                "1 process trained the trials"
                if len(workers) == 1
                else f"{len(workers)} processes trained the trials; what the sampler knew depended "
                "on their speed, so only --workers 1 repeats exactly the same trials",
                len(workers) == 1,
            ),
            Item(
                "Uncertainty",
                "standard deviation over seeds (n - 1); 95% intervals of means over seeds by "
                "Student's t; of the paired difference over seeds and test examples, crossed",
                len(self.seeds) > 1,
            ),
            *checklist.environment_items([checklist.own_tags(run) for run in runs]),
        ]

    def repeat(self) -> list[Block]:
        if self.run.tag("code_origin"):  # no command names its experiment
            return [checklist.repeat_commands((run, "") for run in self.confirmations)]
        commands = ["# the study", self._command()]
        for config, confirmation in self.confirmed.items():
            fields = confirmation["fields"]
            options = {**fields, "seed": self.seeds[0], "validation_size": 0}
            if len(self.seeds) > 1:
                options["repeats"] = len(self.seeds)
            if threads := self.tags.get("threads"):
                options["threads"] = threads
            command = command_text(run_arguments(self.experiment, options))
            commands += [f"# {config}, on all training examples", command]
        return [checklist.repeat_commands((self.run, command) for command in commands)]

    def _command(self) -> str:
        return str(self.answer.get("command") or self.tags.get("command", ""))

    def _of_all(self) -> str:
        return f" of {self.answer['n_trials']}" if self.answer["n_trials"] else ""

    def _outcomes(self) -> str:
        return checklist.counted(self.counts)

    def _continued(self) -> list[str]:
        now = sum(row.outcome in FINISHED_OUTCOMES for row in self.rows)
        if now == self.finished:
            return []
        return [
            f"{now} trials have finished by now, but the answer is from after {self.finished}: "
            "run the study to its end for a new one"
        ]

    def _compute_time(self) -> tuple[str, str]:
        """The time of all trainings together, and its parts."""
        trials = sum(row.seconds or 0.0 for row in self.rows)
        training = sum(row.training_seconds or 0.0 for row in self.rows)
        parts = f"trials {duration(trials)}, of which training and evaluation {duration(training)}"
        seconds = [c.get("seconds") for c in self.confirmed.values()]
        if self.confirmed and None not in seconds:
            trials += sum(seconds)
            parts += f"; confirmations {duration(sum(seconds))}"
        return duration(trials), f"{parts}; summed over workers"

    def _configurations(self) -> Table:
        rows: list[list[Value]] = []
        for config, confirmation in self.confirmed.items():
            varied = [_cell(confirmation["fields"].get(name)) for name in self.names]
            for metric in self.confirming:
                measure = [metric_in_words(metric)] if self.is_front else []
                numbers = _numbers(_summary(confirmation, metric))
                rows.append([config, *varied, *measure, *numbers])
        if difference := self.answer["difference"]:
            ends = [difference["difference"], None, difference["low"], difference["high"]]
            rows.append(["difference", *(None for _ in self.names), *ends, difference["n"]])
        return Table(
            f"{capitalized(self.reported)} after training on all training examples",
            [
                TableColumn("configuration"),
                *(TableColumn(name, self._digits(name)) for name in self.names),
                *([TableColumn("metric")] if self.is_front else []),
                *(
                    TableColumn(name, ".6g" if self.is_front else ".4f")
                    for name in ("mean", "std", "95% low", "95% high")
                ),
                TableColumn("n seeds"),
            ],
            rows,
        )

    def _digits(self, name: str) -> str:
        values = [row.params.get(name) for row in self.rows]
        return ".6g" if any(isinstance(value, float) for value in values) else ""

    def _pictures(self, *names: str) -> list[Block]:
        found = []
        for name in names:
            if name in self.figures:
                with style.expendable(name):
                    wide = self.figures[name].get_size_inches()[0] > 7
                    svg = style.svg(self.figures[name])
                    found.append(Picture(svg, _alternative(name, self), wide=wide))
        return [Pictures(found)] if found else []


def _summary(confirmation: Mapping[str, Any], metric: str) -> Summary:
    values = confirmation["values"][metric].values()
    return summarize([math.nan if value is None else value for value in values])


def _alternative(name: str, content: _Content) -> str:
    """What a figure shows, in words."""
    kind = next(kind for kind in ALTERNATIVES if name.startswith(kind))
    return ALTERNATIVES[kind](content)


def _numbers(summary: Summary) -> list[Value]:
    return [summary.mean, summary.std, summary.low, summary.high, summary.n]


def _cell(value: Any) -> Value:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


ALTERNATIVES: Mapping[str, Callable[[_Content], str]] = {
    "confirmation": lambda c: (
        f"{capitalized(c.reported)} of each seed, and its mean with a 95% interval: "
        + "; ".join(
            f"{name} {' and '.join(str(_summary(found, metric)) for metric in c.confirming)}"
            for name, found in c.confirmed.items()
        )
        + "."
    ),
    "optimization_history": lambda c: (
        f"{capitalized(c.objective)} by trial, {number_of(len(c.rows), 'trial')}; the best value, "
        f"{metric_text(c.chosen[0]['values'][0])}, is that of trial {c.chosen[0]['trial']}."
    ),
    "learning_curves": lambda c: (
        f"{capitalized(c.objective)} by epoch: a line for each completed and each pruned trial, "
        f"the best one in front, which ends at {metric_text(c.chosen[0]['values'][0])}."
    ),
    "pareto_front": lambda c: (
        f"The completed trials by {c.objective}; a line joins the {len(c.chosen)} of the front."
    ),
    "expected_best": lambda c: (
        f"Expected best {c.objective} by number of trials, with one standard deviation; the table "
        "below has its numbers."
    ),
    "importances": lambda c: (
        "Bars of relative importance by PED-ANOVA: "
        + ", ".join(f"{name} {value:.2f}" for name, value in c.importances.items())
        + "."
    ),
    "slices": lambda c: (
        f"{capitalized(c.objective)} by the value of {', '.join(c.conditions)}, one panel each; "
        f"{'those of the front are stars' if c.is_front else 'the best is a star'}, the default "
        "a line."
    ),
    "contour": lambda c: (
        f"{capitalized(c.objective)} over {' and '.join(c.shared)}, as colour on a surface "
        "through the completed trials."
    ),
    "parallel_coordinates": lambda c: (
        f"A line for each completed trial through its values of {', '.join(c.shared)}, coloured by "
        f"{c.objective}."
    ),
}
"""What each figure shows, in words for readers who cannot see it."""
