"""Which recorded runs are meant by the name of an experiment or study, ids and a filter."""

from __future__ import annotations

from collections.abc import Sequence

from harness.base import discovery
from harness.base.errors import BadRequest, nearest
from harness.tracking.reader import LAST, Reader
from harness.tracking.schema import StoredRun

OF_STUDIES = ("study", "trial", "confirm")
"""Kinds of the runs that belong to a study."""

PARENTS = ("group", "study")
"""Kinds of the runs that train nothing themselves: their children do."""


def select_runs(
    reader: Reader,
    experiment: str | None = None,
    *,
    study: str | None = None,
    run_ids: Sequence[str] = (),
    filter: str = "",
) -> list[StoredRun]:
    """The runs that meet every condition, the newest first; see `harness.runs`.

    Raises:
        BadRequest: the experiment, study or run does not exist, or the filter has an error.
    """
    if experiment is not None and study is not None:
        raise BadRequest("Choose an experiment or a study, not both.")
    name = experiment if study is None else study
    if name is None:
        return reader.runs(filter=filter, run_ids=run_ids)
    known = reader.experiments()
    if name not in known:
        raise no_runs(name, study is not None, known)
    found = reader.runs(name, filter, run_ids)
    chosen = [run for run in found if (run.kind in OF_STUDIES) == (study is not None)]
    if chosen or filter:
        return chosen
    if found:
        this, other = ("study", "an experiment") if study else ("experiment", "a study")
        raise BadRequest(f"{this}: {name} is {other}; ask for it as such.")
    raise no_runs(name, study is not None, known)


def no_runs(name: str, is_study: bool, known: Sequence[str], what: str = "") -> BadRequest:
    """What to answer if an experiment or study has no runs; the message starts with `what`."""
    kind, folder, command = (
        ("study", "studies", "study") if is_study else ("experiment", "experiments", "run")
    )
    kind = what or kind
    if name in discovery.names(folder):
        return BadRequest(
            f"{kind}: {name} has no runs yet. Make some: python -m harness.{command} {name}"
        )
    # MLflow creates an experiment named Default by itself.
    others = [entry for entry in known if entry not in (name, "Default")]
    return BadRequest(f"{kind}: there are no runs of {name!r}. {nearest(name, others)}")


def trained_run(identity: str, reader: Reader, what: str = "run") -> StoredRun:
    """A run by its id, whole or its first letters, or `last` for the latest completed one.

    Args:
        what: starts the message of an error.

    Raises:
        BadRequest: no run or more than one is meant.
    """
    if identity == LAST:
        completed = (r for r in reader.runs() if r.kind == "run" and r.outcome == "completed")
        identity = next((found.run_id for found in completed), "")
        if not identity:
            raise BadRequest(f"{what}: there is no run here that has completed.")
    return reader.find(identity, what)
