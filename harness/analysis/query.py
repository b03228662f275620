"""Which runs are compared: those asked for, groups as their runs, and never by accident runs that
saw different images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadRequest, nearest
from harness.cli.compare_flags import CompareSettings
from harness.tracking import frames

if TYPE_CHECKING:
    import pandas as pd

Run = dict[str, Any]
"""A run: its values by the names of the columns of `harness.runs`, None where one is missing."""


def select(settings: CompareSettings) -> list[Run]:
    """The runs that the settings ask for, the newest first: none of them a group or a study.

    Raises:
        BadRequest: what is named does not exist.
    """
    frame = frames.runs(
        settings.experiment,
        study=settings.study,
        run_ids=settings.run_ids,
        filter=settings.filter,
    )
    if settings.run_ids:
        runs = _with_children(frame)
    elif settings.study:
        runs = [run for run in records(frame) if run["kind"] in ("trial", "confirm")]
    else:
        # One that the harness did not record has no kind.
        runs = [run for run in records(frame) if run["kind"] in ("run", None)]
    if settings.dataset:
        known = {str(run["dataset"]) for run in runs}
        runs = [run for run in runs if run["dataset"] == settings.dataset]
        if known and not runs:
            raise BadRequest(
                f"dataset: no such runs on {settings.dataset!r}. {nearest(settings.dataset, known)}"
            )
    return runs


def named(identity: str) -> list[Run]:
    """The run of that id, or the runs of that group.

    Raises:
        BadRequest: there is none.
    """
    return _with_children(frames.runs(run_ids=[identity]))


def records(frame: pd.DataFrame) -> list[Run]:
    """The rows of a frame of runs as plain values."""
    plain = frame.astype(object).where(frame.notna(), None)
    runs: list[Run] = plain.to_dict("records")
    return runs


def _with_children(frame: pd.DataFrame) -> list[Run]:
    """The runs of a frame, the children of a group or study in its place."""
    parents = [run for run in records(frame) if run["kind"] in frames.PARENTS]
    if not parents:
        return records(frame)
    children: set[str] = set()
    for parent in parents:
        where = "study" if parent["kind"] == "study" else "experiment"
        family = frames.runs(**{where: parent["mlflow_experiment"]})
        children |= set(family["run_id"][family["parent"] == parent["run_id"]])
    chosen = children.union(frame["run_id"]) - {parent["run_id"] for parent in parents}
    return records(frames.runs(run_ids=chosen)) if chosen else []


def images(run: Run) -> str:
    """The images that a run was judged by, in words: `mnist, test images`."""
    part = next((part for part in ("validation", "test") if run.get(f"data.{part}")), None)
    return f"{run['dataset']}, {part} images" if part else ""


def data(run: Run) -> tuple[str | None, ...]:
    """What a run saw: its images in words, then the SHA-256 of each part; () where unknown."""
    words = images(run)
    parts = ("training", "validation", "test")
    return (words, *(run.get(f"data.{part}") for part in parts)) if words else ()


def refuse_mixed_data(runs: Iterable[Run]) -> None:
    """Numbers that were measured on different images cannot be compared.

    Raises:
        BadRequest: the runs were trained or judged on different images.
    """
    seen = Counter(saw for run in runs if (saw := data(run)))
    if len(seen) < 2:
        return
    alike = Counter(words for words, *_ in seen)
    lines = [
        f"  {words}{_digests(digests) if alike[words] > 1 else ''}: {n} run{'' if n == 1 else 's'}"
        for (words, *digests), n in seen.most_common()
    ]
    names = {str(words).partition(",")[0] for words, *_ in seen}
    way = "--dataset NAME" if len(names) > 1 else "--filter \"params.validation_size = '0'\""
    raise BadRequest(
        f"These runs saw {len(seen)} different sets of images:\n"
        + "\n".join(lines)
        + f"\nChoose one of them with {way}, or compare all the same with --mixed-data."
    )


def _digests(digests: Sequence[str | None]) -> str:
    return f" (SHA-256 {', '.join(digest[:8] for digest in digests if digest)})"
