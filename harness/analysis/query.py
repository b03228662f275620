"""Which runs are compared: those asked for, groups as their runs, and never by accident runs that
saw different examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.base.errors import BadRequest, nearest
from harness.base.formatting import harmless, number_of
from harness.tracking.reader import Reader
from harness.tracking.schema import StoredRun
from harness.tracking.selection import PARENTS, select_runs


@dataclass(frozen=True)
class Query:
    """The runs to compare; every attribute narrows the selection.

    Attributes:
        run_ids: runs, groups or studies, by whole ids or unique first letters.
        experiment: runs of this experiment.
        study: trials and confirmations of this study.
        filter: a condition in MLflow's filter language.
        dataset: runs on this data set.
    """

    run_ids: tuple[str, ...] = ()
    experiment: str | None = None
    study: str | None = None
    filter: str = ""
    dataset: str | None = None

    @property
    def filters_results(self) -> bool:
        """Whether the filter asks for what came out, and not only for what was tried.

        The seeds of a configuration that meet such a condition are no random ones: their mean and
        spread would be those of the selection.
        """
        return bool(re.search(r"(?i)\bmetrics?\b|\bstatus\b|outcome|(end|start)_time", self.filter))

    def __str__(self) -> str:
        """What is asked for, in words: `experiment 'baseline', dataset 'mnist'`."""
        asked = {
            "experiment": self.experiment,
            "study": self.study,
            "filter": self.filter,
            "dataset": self.dataset,
            "run": " ".join(self.run_ids),
        }
        return ", ".join(f"{name} {value!r}" for name, value in asked.items() if value)


def select(query: Query, reader: Reader) -> list[StoredRun]:
    """The runs that a query asks for, the newest first, without groups and studies.

    Raises:
        BadRequest: what the query names does not exist.
    """
    found = select_runs(
        reader,
        query.experiment,
        study=query.study,
        run_ids=query.run_ids,
        filter=query.filter,
    )
    if query.run_ids:
        found = with_children(found, reader)
    else:
        # A run that the harness did not record has no kind.
        kinds = ("trial", "confirm") if query.study else ("run", "")
        found = [run for run in found if run.kind in kinds]
    if query.dataset:
        known = {str(run.dataset) for run in found}
        found = [run for run in found if run.dataset == query.dataset]
        if known and not found:
            raise BadRequest(
                f"dataset: no such runs on {query.dataset!r}. {nearest(query.dataset, known)}"
            )
    return found


def with_children(found: Iterable[StoredRun], reader: Reader) -> list[StoredRun]:
    """Runs, the newest first, with the children of a group or study in its place."""
    chosen: dict[str, StoredRun] = {}
    for run in found:
        members = reader.children(run.run_id) if run.kind in PARENTS else [run]
        chosen |= {member.run_id: member for member in members}
    return sorted(chosen.values(), key=lambda run: (-run.start, run.run_id))


def judged_on(run: StoredRun) -> str:
    """The examples that judged a run, in words: `mnist, test examples`; "" if not recorded."""
    part = next((part for part in ("validation", "test") if part in run.data), None)
    return harmless(f"{run.dataset}, {part} examples") if part else ""


def data_seen(run: StoredRun) -> tuple[str | None, ...]:
    """What judged a run, in words, then the SHA-256 of each part; () if not recorded."""
    words = judged_on(run)
    parts = ("training", "validation", "test")
    return (words, *(run.data.get(part) for part in parts)) if words else ()


def refuse_mixed_data(runs: Iterable[StoredRun]) -> None:
    """Numbers that were measured on different examples cannot be compared.

    Raises:
        BadRequest: the runs were trained or judged on different examples.
    """
    seen = Counter(saw for run in runs if (saw := data_seen(run)))
    if len(seen) < 2:
        return
    alike = Counter(words for words, *_ in seen)
    lines = [
        f"  {words}{_digests(digests) if alike[words] > 1 else ''}: {number_of(n, 'run')}"
        for (words, *digests), n in seen.most_common()
    ]
    names = {str(words).partition(",")[0] for words, *_ in seen}
    way = "--dataset NAME" if len(names) > 1 else "--filter \"params.validation_size = '0'\""
    raise BadRequest(
        f"These runs saw {len(seen)} different sets of examples:\n"
        + "\n".join(lines)
        + f"\nChoose one of them with {way}, or compare them anyway with --mixed-data."
    )


def _digests(digests: Sequence[str | None]) -> str:
    return f" (SHA-256 {', '.join(digest[:8] for digest in digests if digest)})"
