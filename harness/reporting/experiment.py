"""The report of an experiment, from the frames of its runs and their epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.reporting import checklist
from harness.reporting.checklist import Tags, duration
from harness.reporting.curves import LINES, learning_curves
from harness.reporting.page import (
    Block,
    Checklist,
    Column,
    Item,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    Value,
    render,
)
from harness.statistics import Summary, summarize

TRAINED = ("completed", "diverged")
"""Outcomes of runs whose last values count."""

HARDWARE = ("device", "device_name", "threads", "git_commit")
"""Columns of a frame of runs that are tags."""


@dataclass(frozen=True)
class Configuration:
    """Runs that differ by their seed alone.

    Attributes:
        name: the values that tell it from the others.
        runs: the part of the frame that holds them.
    """

    name: str
    values: dict[str, Value]
    runs: pd.DataFrame

    def summary(self, metric: str) -> Summary:
        """Of the last values of a metric, over the seeds."""
        return summarize([float(value) for value in self.runs[f"metrics.{metric}"]])


def report(name: str, question: str, runs: pd.DataFrame, epochs: pd.DataFrame) -> str:
    """The report of an experiment with a run, as HTML.

    Args:
        question: what the experiment's file says that it is; may be empty.
        runs: from `harness.tracking.reading.runs`, the groups of seeds among them.
        epochs: of those runs.
    """
    trained = runs[runs["kind"] == "run"]
    told = _Report(name, trained, epochs)
    datasets = ", ".join(sorted(set(trained["dataset"].dropna())))
    page = Page(
        title=name,
        kind=f"Experiment on {datasets}",
        question=question,
        facts=told.facts(),
        sections=[
            *told.results(),
            Section("All runs", [told.runs_table()]),
            Section("Reproducibility", [Checklist(told.checklist())]),
            Section("Repeat it", [checklist.again(told.commands(runs))]),
        ],
    )
    return render(page)


class _Report:
    def __init__(self, name: str, runs: pd.DataFrame, epochs: pd.DataFrame) -> None:
        self.name, self.runs, self.epochs = name, runs, epochs
        self.parameters = [column for column in runs if column.startswith("params.")]
        self.varied = [
            column
            for column in self.parameters
            if column not in ("params.seed", "params.dataset", "params.validation_size")
            and runs[column].nunique(dropna=False) > 1
        ]
        self.ended = runs[runs["outcome"].isin(TRAINED)]

    def facts(self) -> list[tuple[str, str]]:
        facts = [("Runs", str(len(self.runs)))]
        for dataset, part, runs in self._evaluated():
            best = self._configurations(runs, part)[0]
            found = best.summary(f"{part}/accuracy")
            spread = f" ± {found.std:.4f}" if found.n > 1 else ""
            what = f"Highest {part} accuracy, {dataset}"
            facts.append((what, f"{found.mean:.4f}{spread} (n = {found.n})"))
        seconds = float(self.runs["seconds"].sum())
        devices = checklist.each(self.runs["device"].dropna())
        return [*facts, ("Compute time", duration(seconds)), ("Device", devices)]

    def results(self) -> Iterator[Section]:
        """A section for each set of images: what was seen on different ones does not compare."""
        for dataset, part, runs in self._evaluated():
            found = self._configurations(runs, part)
            shown = found[: len(LINES)]
            blocks: list[Block] = [self._table(found, part)]
            if len(shown) < len(found):
                blocks.append(Text(f"The curves are those of the first {len(shown)} of them."))
            pictures = [
                self._picture(
                    shown, f"{part}/{quantity}", f"{self.name} on {dataset}: {part} {quantity}"
                )
                for quantity in ("accuracy", "loss")
            ]
            yield Section(f"On {dataset}, {part} images", [*blocks, Pictures(pictures)])
        if self.ended.empty:
            yield Section("Results", [Text("No run has come to its end.")])

    def runs_table(self) -> Table:
        measured = [
            (part, quantity)
            for part in ("test", "validation")
            for quantity in ("accuracy", "loss")
            if f"metrics.{part}/{quantity}" in self.runs
        ]
        columns = [
            *(Column("name"), Column("outcome"), Column("data set"), Column("seed")),
            *(self._column(name) for name in self.varied),
            *(Column(f"{part} {quantity}", ".4f") for part, quantity in measured),
            *(Column("epochs"), Column("seconds", ".1f"), Column("device"), Column("begun")),
        ]
        names = ["name", "outcome", "dataset", "seed", *self.varied]
        names += [f"metrics.{part}/{quantity}" for part, quantity in measured]
        names += ["epochs", "seconds", "device"]
        rows = [
            [*(_plain(row[name]) for name in names), f"{row['start_time']:%Y-%m-%d %H:%M}"]
            for _, row in self.runs.iterrows()
        ]
        caption = f"All {len(rows)} runs, the newest first; a click on a column's name sorts them"
        return Table(caption, columns, rows, sortable=True)

    def checklist(self) -> list[Item]:
        runs, ended = self.runs, self.ended
        outcomes = ", ".join(
            f"{n} {outcome}" for outcome, n in runs["outcome"].value_counts().items()
        )
        seeds = ", ".join(str(seed) for seed in sorted(set(runs["seed"].dropna())))
        configurations = [
            len(self._configurations(part_runs, part)) for _, part, part_runs in self._evaluated()
        ]
        parts = {part for _, part, _ in self._evaluated()}
        chosen = max(configurations, default=0) > 1
        tags = [_tags(row) for _, row in runs.iterrows()]
        return [
            Item(
                "Measure",
                f"accuracy on the {' or '.join(sorted(parts)) or 'evaluation'} images after the "
                "last epoch",
                bool(parts),
            ),
            checklist.data(
                (str(row["dataset"]), use, None, row[f"data.{use}"])
                for _, row in runs.iterrows()
                for use in ("training", "validation", "test")
                if isinstance(row.get(f"data.{use}"), str)
            ),
            Item("Split", self._split()),
            Item("Seeds", seeds or checklist.NOTHING, bool(seeds)),
            Item(
                "Choice of the best",
                "none is chosen: configurations are sorted by their mean, and the highest of "
                "several flatters itself"
                if chosen
                else "one configuration, nothing was chosen",
                not (chosen and "test" in parts),
            ),
            Item("Number of runs", f"{len(runs)} ({outcomes})", len(ended) == len(runs)),
            Item("Compute time", f"{duration(float(runs['seconds'].sum()))}, summed over runs"),
            Item(
                "Uncertainty",
                "standard deviation over seeds (n - 1); 95% intervals of means by Student's t",
                bool(configurations) and len(ended) >= 2 * sum(configurations),
            ),
            *checklist.environment(tags, "see below"),
        ]

    def commands(self, runs: pd.DataFrame) -> Iterator[tuple[Tags, str]]:
        """Every command once, the oldest first; of a group's seeds they are all the same."""
        seen = set()
        for _, row in runs.sort_values("start_time").iterrows():
            tags = _tags(row)
            key = (tags.get("git_commit"), tags.get("git_dirty"), tags.get("command", ""))
            if key[2] and key not in seen:
                seen.add(key)
                yield tags, key[2]

    def _evaluated(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Data set, evaluation set, and the ended runs that were evaluated on it."""
        for dataset, runs in self.ended.groupby("dataset"):
            for part in ("test", "validation"):
                column = f"metrics.{part}/accuracy"
                if column in runs and not (found := runs[runs[column].notna()]).empty:
                    yield str(dataset), part, found

    def _configurations(self, runs: pd.DataFrame, part: str) -> list[Configuration]:
        """The runs by what differs but the seed, the highest mean accuracy first."""
        others = [name for name in self.parameters if name != "params.seed"]
        found = []
        for _, same in runs.groupby(others, dropna=False):
            values = {name: _plain(same.iloc[0][name]) for name in self.varied}
            words = " ".join(
                f"{name.removeprefix('params.')}={value:.4g}"
                if isinstance(value, float)
                else f"{name.removeprefix('params.')}={value}"
                for name, value in values.items()
                if value is not None
            )
            # The same seed again, at another commit perhaps: the newest run of it counts.
            seeds = same.drop_duplicates("seed").sort_values("seed")
            found.append(Configuration(words or self.name, values, seeds))
        return sorted(found, key=lambda c: -c.summary(f"{part}/accuracy").mean)

    def _table(self, found: Sequence[Configuration], part: str) -> Table:
        rows: list[list[Value]] = []
        for configuration in found:
            accuracy = configuration.summary(f"{part}/accuracy")
            diverged = int((configuration.runs["outcome"] == "diverged").sum())
            rows.append(
                [
                    *(configuration.values[name] for name in self.varied),
                    *(accuracy.mean, accuracy.std, accuracy.low, accuracy.high, accuracy.n),
                    configuration.summary(f"{part}/loss").mean,
                    float(configuration.runs["seconds"].mean()),
                    f"{diverged} diverged" if diverged else None,
                ]
            )
        columns = [
            *(self._column(name) for name in self.varied),
            *(Column(name, ".4f") for name in ("accuracy", "std", "95% low", "95% high")),
            *(
                Column("n seeds"),
                Column("loss", ".4f"),
                Column("seconds a run", ".1f"),
                Column("note"),
            ),
        ]
        caption = f"Mean {part} accuracy and loss after the last epoch; a click on a name sorts"
        return Table(caption, columns, rows, sortable=True)

    def _picture(self, found: Sequence[Configuration], metric: str, title: str) -> Picture:
        of_metric = self.epochs[self.epochs["metric"] == metric]
        table = of_metric.pivot(index="epoch", columns="run_id", values="value")
        curves = {c.name: table[list(c.runs["run_id"])].dropna(how="all") for c in found}
        ends = "; ".join(f"{c.name} {c.summary(metric)}" for c in found)
        svg = learning_curves(curves, metric.replace("/", " "), title)
        return Picture(svg, f"{title} by epoch, a line for each configuration. At the end: {ends}.")

    def _split(self) -> str:
        sizes = sorted(set(self.runs["params.validation_size"].dropna()))
        if sizes == [0]:
            return "none: evaluated on the test images after each epoch"
        drawn = checklist.each(str(seed) for seed in self.runs["params.split_seed"].dropna())
        return (
            f"validation images set aside: {', '.join(map(str, sizes))} (0: evaluated on the test "
            f"images), drawn by split_seed {drawn}"
        )

    def _column(self, name: str) -> Column:
        digits = ".4g" if pd.api.types.is_float_dtype(self.runs[name]) else ""
        return Column(name.removeprefix("params."), digits)


def _plain(value: Any) -> Value:
    """A cell of a frame without NumPy's types; None where it is missing."""
    if pd.isna(value):
        return None
    plain: Value = value.item() if hasattr(value, "item") else value
    return plain


def _tags(row: pd.Series) -> Tags:
    """The tags of a run, from its row."""
    found = {
        name.removeprefix("tags.harness."): value
        for name, value in row.items()
        if isinstance(name, str) and name.startswith("tags.harness.") and isinstance(value, str)
    }
    return found | {name: str(row[name]) for name in HARDWARE if not pd.isna(row[name])}
