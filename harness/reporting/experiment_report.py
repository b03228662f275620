"""The report of an experiment, from the frames of its runs and their epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.analysis import rows
from harness.analysis.curves import curves, seen_images
from harness.analysis.query import Run, images
from harness.analysis.rows import FINISHED, Row
from harness.base.formatting import assignments, duration, number_of
from harness.figures.comparison_figures import draw_comparison
from harness.reporting import checklist
from harness.reporting.checklist import Tags
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
    render,
)

HARDWARE = ("device", "device_name", "threads", "git_commit")
"""Columns of a run that are tags."""


def report(name: str, question: str, runs: Sequence[Run]) -> str:
    """The report of an experiment, as HTML.

    Args:
        question: what the experiment's file says that it is; may be empty.
        runs: at least one, the newest first, groups of seeds as the runs that they are.
    """
    told = _Report(name, runs)
    datasets = ", ".join(sorted({str(run["dataset"]) for run in runs}))
    page = Page(
        title=name,
        kind=f"Experiment on {datasets}",
        question=question,
        facts=told.facts(),
        sections=[
            *told.results(),
            Section("All runs", [told.runs_table()]),
            Section("Reproducibility", [Checklist(told.checklist())]),
            Section("Repeat it", [checklist.repeat_commands(told.commands())]),
        ],
    )
    return render(page)


class _Report:
    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        self.name, self.runs = name, runs
        ended = [run for run in runs if run["outcome"] in FINISHED and images(run)]
        self.seen: dict[str, list[Row]] = {
            words: rows.ordered(
                rows.rows([run for run in ended if images(run) == words]), None, False
            )
            for words in sorted(set(map(images, ended)))
        }
        self.varied = [
            column
            for column in runs[0]
            if column.startswith("params.")
            and column not in ("params.seed", "params.dataset", "params.validation_size")
            and len({run[column] for run in runs}) > 1
        ]
        self.seconds = sum(run["seconds"] or 0.0 for run in runs)

    def facts(self) -> list[Fact]:
        facts = [Fact("Runs", str(len(self.runs)), checklist.counted(self.outcomes()))]
        for words, found in self.seen.items():
            best = found[0].summary(str(found[0].objective))
            if best:
                spread = f"± {best.std:.4f}, " if best.n > 1 else ""
                name = f"Highest accuracy, {words}"
                facts.append(Fact(name, f"{best.mean:.4f}", f"{spread}n = {best.n}"))
        devices = checklist.each(str(run["device"]) for run in self.runs)
        names = checklist.each(str(run["device_name"]) for run in self.runs)
        return [
            *facts,
            Fact("Compute time", duration(self.seconds), "summed over runs"),
            Fact("Device", devices, names),
        ]

    def results(self) -> Iterator[Section]:
        """A section for each set of images: what was seen on different ones does not compare."""
        if not self.seen:
            yield Section("Results", [Text("No run has come to its end.")])
        for words, found in self.seen.items():
            objective = str(found[0].objective)
            blocks: list[Block] = [self._table(found, objective)]
            if repeats := sum(len(row.repeats) for row in found):
                blocks.append(
                    Text(
                        f"{number_of(repeats, 'run')} left out here: a later one has the same "
                        "fields and seed."
                    )
                )
            ends = "; ".join(f"{self._named(row)} {row.summary(objective)}" for row in found)
            picture = Picture(
                draw_comparison(
                    curves(found, [*map(self._named, found)]), self.name, seen_images(found), "svg"
                ),
                f"Accuracy and loss by epoch, a line for each configuration. At the end: {ends}.",
                wide=True,
            )
            yield Section(f"Results on {words}", [*blocks, Pictures([picture])])

    def runs_table(self) -> Table:
        measured = [
            f"metrics.{part}/{quantity}"
            for part in ("test", "validation")
            for quantity in ("accuracy", "loss")
            if f"metrics.{part}/{quantity}" in self.runs[0]
        ]
        several = len({run["dataset"] for run in self.runs}) > 1
        columns = [
            *(TableColumn("name"), TableColumn("outcome"), TableColumn("seed")),
            *([TableColumn("data set")] if several else []),
            *map(_parameter, self.varied),
            *(TableColumn(name.removeprefix("metrics."), ".4f") for name in measured),
            *(
                TableColumn("epochs"),
                TableColumn("seconds", ".1f"),
                TableColumn("device"),
                TableColumn("begun"),
            ),
        ]
        names = ["name", "outcome", "seed", *(["dataset"] if several else []), *self.varied]
        names += [*measured, "epochs", "seconds", "device"]
        table = [
            [*(run[name] for name in names), f"{run['start_time']:%Y-%m-%d %H:%M}"]
            for run in self.runs
        ]
        caption = f"All {len(table)} runs, the newest first; a click on a column's name sorts them"
        return Table(caption, columns, table, sortable=True)

    def outcomes(self) -> dict[str, int]:
        """Runs by outcome, the most frequent first."""
        return dict(Counter(str(run["outcome"]) for run in self.runs).most_common())

    def checklist(self) -> list[Item]:
        runs = self.runs
        seeds = sorted({run["seed"] for run in runs if run["seed"] is not None})
        found = [row for several in self.seen.values() for row in several]
        chosen = any(len(several) > 1 for several in self.seen.values())
        on_test = any("test" in words for words in self.seen)
        return [
            Item(
                "Measure",
                "after the last epoch, " + "; ".join(f"accuracy on {words}" for words in self.seen),
                bool(self.seen),
            ),
            checklist.data_item(
                (run["dataset"], use, None, run[f"data.{use}"])
                for run in runs
                for use in ("training", "validation", "test")
                if run.get(f"data.{use}")
            ),
            Item("Split", self._split()),
            Item("Seeds", ", ".join(map(str, seeds)) or checklist.NOTHING, bool(seeds)),
            Item(
                "Choice of the best",
                "none is chosen: configurations are sorted by their mean, and the highest of "
                "several flatters itself"
                if chosen
                else "one configuration, nothing was chosen",
                not (chosen and on_test),
            ),
            Item(
                "Number of runs",
                f"{len(runs)} ({checklist.counted(self.outcomes())})",
                all(run["outcome"] in FINISHED for run in runs),
            ),
            Item("Compute time", f"{duration(self.seconds)}, summed over runs"),
            Item(
                "Uncertainty",
                "standard deviation over seeds (n - 1); 95% intervals of means by Student's t",
                bool(found) and all(row.n > 1 for row in found),
            ),
            *checklist.environment_items([_tags(run) for run in runs]),
        ]

    def commands(self) -> Iterator[tuple[Tags, str]]:
        """Every command once, the oldest first; of a group's seeds they are all the same."""
        seen = set()
        for run in reversed(self.runs):
            tags = _tags(run)
            key = (tags.get("git_commit"), tags.get("git_dirty"), tags.get("command"))
            if key[2] and key not in seen:
                seen.add(key)
                yield tags, key[2]

    def _table(self, found: Sequence[Row], objective: str) -> Table:
        loss = objective.replace("accuracy", "loss")
        # A name of the user's own says what the columns do not.
        named = not self.varied or any(row.is_named for row in found)
        names = [f"metrics.{objective}", *(f"{s}.{objective}" for s in ("std", "low", "high"))]
        columns = [
            *([TableColumn("configuration")] if named else []),
            *map(_parameter, self.varied),
            *(TableColumn(name, ".4f") for name in ("accuracy", "std", "95% low", "95% high")),
            *(
                TableColumn("n seeds"),
                TableColumn("loss", ".4f"),
                TableColumn("seconds a run", ".1f"),
            ),
            TableColumn("outcome"),
        ]
        table: list[list[Value]] = [
            [
                *([row.label] if named else []),
                *(row.record[name] for name in (*self.varied, *names, "n", f"metrics.{loss}")),
                *(row.record["seconds"], row.record["outcome"]),
            ]
            for row in found
        ]
        caption = f"Mean {objective} after the last epoch; a click on a column's name sorts"
        return Table(caption, columns, table, sortable=True)

    def _named(self, row: Row) -> str:
        """What tells a row from the others; its own name where no value does."""
        values = ((name.removeprefix("params."), row.record[name]) for name in self.varied)
        return (
            assignments({name: value for name, value in values if value is not None}) or row.label
        )

    def _split(self) -> str:
        sizes = sorted({run["params.validation_size"] for run in self.runs})
        if sizes == [0]:
            return "none: evaluated on the test images after each epoch"
        drawn = checklist.each(str(run["params.split_seed"]) for run in self.runs)
        return (
            f"validation images set aside: {', '.join(map(str, sizes))} (with 0, evaluated on the "
            f"test images), drawn by split_seed {drawn}"
        )


def _parameter(column: str) -> TableColumn:
    return TableColumn(column.removeprefix("params."), ".4g")


def _tags(run: Run) -> Tags:
    found: dict[str, Any] = {
        name.removeprefix("tags.harness."): value
        for name, value in run.items()
        if name.startswith("tags.harness.")
    }
    found |= {name: run[name] for name in HARDWARE}
    return {name: str(value) for name, value in found.items() if value is not None}
