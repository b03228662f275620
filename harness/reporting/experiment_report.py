"""The report of an experiment, from its recorded runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.analysis.curves import draw_curves
from harness.analysis.query import judged_on
from harness.analysis.rows import Row, ordered_rows, rows_of
from harness.base.formatting import capitalized, duration, metric_text, number_of, value_text
from harness.base.metric_names import JUDGES
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
    render,
)
from harness.tracking.frames import ordered_columns, run_columns
from harness.tracking.reader import Reader
from harness.tracking.schema import ENDED, StoredRun


def experiment_page(name: str, question: str, runs: Sequence[StoredRun], reader: Reader) -> str:
    """The report of an experiment, as HTML.

    Args:
        question: what the experiment's file says about itself; may be empty.
        runs: at least one, the newest first; a group of seeds as its runs.
        reader: of the store that holds them.
    """
    parts = _Report(name, runs, reader)
    datasets = ", ".join(sorted({str(run.dataset) for run in runs}))
    page = Page(
        title=name,
        kind=f"Experiment on {datasets}",
        question=question,
        facts=parts.facts(),
        sections=[
            *parts.results(),
            Section("All runs", [parts.runs_table()]),
            Section("Reproducibility", [Checklist(parts.checklist())]),
            Section("Repeat it", [checklist.repeat_commands(parts.commands())]),
        ],
    )
    return render(page)


class _Report:
    def __init__(self, name: str, runs: Sequence[StoredRun], reader: Reader) -> None:
        self.name, self.runs, self.reader = name, runs, reader
        ended = [run for run in runs if run.outcome in ENDED and judged_on(run)]
        self.seen: dict[str, list[Row]] = {
            words: ordered_rows(
                rows_of([run for run in ended if judged_on(run) == words]), None, False
            )
            for words in sorted(set(map(judged_on, ended)))
        }
        self.values = [run_columns(run) for run in runs]
        known = ordered_columns(name for values in self.values for name in values)
        self.varied = [
            column
            for column in known
            if column.startswith("params.")
            and column not in ("params.seed", "params.dataset", "params.validation_size")
            and len({values.get(column) for values in self.values}) > 1
        ]
        self.seconds = sum(values["seconds"] or 0.0 for values in self.values)

    def facts(self) -> list[Fact]:
        facts = [Fact("Runs", str(len(self.runs)), checklist.counted(self.outcomes()))]
        for words, found in self.seen.items():
            best = found[0].summary(str(found[0].objective))
            if best:
                spread = f"± {metric_text(best.std)}, " if best.n > 1 else ""
                highest = found[0].best_of(str(found[0].objective)) == "max"
                name = f"{'Highest' if highest else 'Lowest'} {_name(found[0])}, {words}"
                facts.append(Fact(name, metric_text(best.mean), f"{spread}n = {best.n}"))
        devices = checklist.each(run.tag("device") for run in self.runs)
        names = checklist.each(run.tag("device_name") for run in self.runs)
        return [
            *facts,
            Fact("Compute time", duration(self.seconds), "summed over runs"),
            Fact("Device", devices, names),
        ]

    def results(self) -> Iterator[Section]:
        """A section for each set of examples: numbers on different examples cannot be compared."""
        if not self.seen:
            yield Section("Results", [Text("No run has finished.")])
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
            labels = [*map(self._named, found)]
            picture = Picture(
                draw_curves(found, labels, self.name, self.reader, "svg"),
                f"{_listed(found[0])} by epoch, a line for each configuration. At the end: {ends}.",
                wide=True,
            )
            yield Section(f"Results on {words}", [*blocks, Pictures([picture])])

    def runs_table(self) -> Table:
        measured = [
            f"metrics.{part}/{quantity}"
            for part in JUDGES
            for quantity in dict.fromkeys(name for run in self.runs for name in run.directions)
            if any(f"metrics.{part}/{quantity}" in values for values in self.values)
        ]
        several = len({run.dataset for run in self.runs}) > 1
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
            [*(values.get(name) for name in names), f"{values['start_time']:%Y-%m-%d %H:%M}"]
            for values in self.values
        ]
        caption = f"All {len(table)} runs, the newest first; a click on a column's name sorts them"
        return Table(caption, columns, table, sortable=True)

    def outcomes(self) -> dict[str, int]:
        """Runs by outcome, the most frequent first."""
        return dict(Counter(run.outcome for run in self.runs).most_common())

    def checklist(self) -> list[Item]:
        runs = self.runs
        seeds = sorted({run.seed for run in runs if run.seed is not None})
        found = [row for several in self.seen.values() for row in several]
        chosen = any(len(several) > 1 for several in self.seen.values())
        on_test = any("test" in words for words in self.seen)
        return [
            Item(
                "Measure",
                "after the last epoch, "
                + "; ".join(f"{_name(found[0])} on {words}" for words, found in self.seen.items()),
                bool(self.seen),
            ),
            checklist.data_item(
                (str(run.dataset), use, None, run.data[use])
                for run in runs
                for use in ("training", "validation", "test")
                if use in run.data
            ),
            Item("Split", self._split()),
            Item("Seeds", ", ".join(map(str, seeds)) or checklist.NOTHING, bool(seeds)),
            Item(
                "Choice of the best",
                "none is chosen: configurations are sorted by their mean, and the highest of "
                "several is too optimistic"
                if chosen
                else "one configuration, nothing was chosen",
                not (chosen and on_test),
            ),
            Item(
                "Number of runs",
                f"{len(runs)} ({checklist.counted(self.outcomes())})",
                all(run.outcome in ENDED for run in runs),
            ),
            Item("Compute time", f"{duration(self.seconds)}, summed over runs"),
            Item(
                "Uncertainty",
                "standard deviation over seeds (n - 1); 95% intervals of means by Student's t",
                bool(found) and all(row.n > 1 for row in found),
            ),
            *checklist.environment_items([checklist.own_tags(run) for run in runs]),
        ]

    def commands(self) -> Iterator[tuple[StoredRun, str]]:
        """Every command once, the oldest first; the seeds of a group share one."""
        seen = set()
        for run in reversed(self.runs):
            tags = checklist.own_tags(run)
            own = run.run_id if run.tag("code_origin") else tags.get("command")
            key = (tags.get("git_commit"), tags.get("git_state"), own)
            if own and key not in seen:
                seen.add(key)
                yield run, own

    def _table(self, found: Sequence[Row], objective: str) -> Table:
        others = [name for name in found[0].judged if name != objective]
        # A name that the user gave says what the columns do not.
        named = not self.varied or any(row.is_named for row in found)
        names = [f"metrics.{objective}", *(f"{s}.{objective}" for s in ("std", "low", "high"))]
        columns = [
            *([TableColumn("configuration")] if named else []),
            *map(_parameter, self.varied),
            *(TableColumn(name, ".4f") for name in (_name(found[0]), "std", "95% low", "95% high")),
            TableColumn("n seeds"),
            *(TableColumn(name.partition("/")[2], ".4f") for name in others),
            TableColumn("seconds a run", ".1f"),
            TableColumn("outcome"),
        ]
        table: list[list[Value]] = [
            [
                *([row.label] if named else []),
                *(row.record.get(name) for name in (*self.varied, *names, "n")),
                *(row.record.get(f"metrics.{name}") for name in others),
                *(row.record["seconds"], row.record["outcome"]),
            ]
            for row in found
        ]
        caption = f"Mean {objective} after the last epoch; a click on a column's name sorts"
        return Table(caption, columns, table, sortable=True)

    def _named(self, row: Row) -> str:
        """What tells a row from the others: the values that vary, or else its own name."""
        values = ((name.removeprefix("params."), row.values.get(name)) for name in self.varied)
        words = [f"{name}={value_text(value)}" for name, value in values if value is not None]
        return " ".join(words) or row.label

    def _split(self) -> str:
        sizes = sorted({run.parameters.get("validation_size", 0) for run in self.runs})
        if sizes == [0]:
            return "none: evaluated on the test examples after each epoch"
        drawn = checklist.each(str(run.parameters.get("split_seed", "")) for run in self.runs)
        return (
            f"validation examples set aside: {', '.join(map(str, sizes))} (with 0, evaluated on "
            f"the test examples), drawn by split_seed {drawn}"
        )


def _name(row: Row) -> str:
    """The objective without the part of the data: `accuracy`."""
    return str(row.objective).partition("/")[2]


def _listed(row: Row) -> str:
    """What was measured, as a sentence begins: `Accuracy, loss`."""
    return capitalized(", ".join(name.partition("/")[2] for name in row.judged))


def _parameter(column: str) -> TableColumn:
    return TableColumn(column.removeprefix("params."), ".6g")
