"""Recorded runs as pandas DataFrames: one row a run, or one row a run and epoch and metric.

`import harness; harness.runs()` and `harness.epochs()` are these functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.base import discovery
from harness.base.errors import BadRequest, nearest
from harness.tracking import reader

if TYPE_CHECKING:
    import pandas as pd

OF_STUDIES = ("study", "trial", "confirm")
"""Kinds of the runs that belong to a study."""

PARENTS = ("group", "study")
"""Kinds of the runs that train nothing themselves: their children do."""

TAGS = ("kind", "experiment", "outcome", "device", "device_name", "threads", "git_commit")
"""Tags, without their prefix, that are columns under that name."""

DTYPES = {
    **dict.fromkeys(("run_id", "name", "kind", "experiment", "mlflow_experiment"), "str"),
    **dict.fromkeys(("parent", "outcome"), "str"),
    "seed": "Int64",
    **dict.fromkeys(("dataset", "device", "device_name"), "str"),
    "threads": "Int64",
    "git_commit": "str",
    "start_time": "datetime64[ms, UTC]",
    "seconds": "float64",
    "epochs": "Int64",
}
"""The columns that every frame of runs has, in this order."""


def runs(
    experiment: str | None = None,
    *,
    study: str | None = None,
    run_ids: Iterable[str] = (),
    filter: str = "",
) -> pd.DataFrame:
    """One row a run, the newest first; what is given narrows the choice down.

    Args:
        experiment: runs of this experiment, without those of studies.
        study: runs of this study: its trials, its confirmations, and its own.
        run_ids: these runs, in any order; the first letters of an id are enough.
        filter: a condition in MLflow's language: `params.lr = '0.1' and metrics.x > 0.9`.

    Returns:
        Columns, with their dtype where it is not str (missing values are NaN or NA):

        - `run_id`, `name`
        - `kind`: `run`, `group` (of seeds), `study`, `trial`, `confirm`, ...
        - `experiment`: what was trained; `mlflow_experiment`: where MLflow lists it
        - `parent`: run id of the group or study that it belongs to
        - `outcome`: `completed`, `pruned`, `diverged`, `interrupted`, `failed` or `running`
        - `seed` (Int64; missing for a group), `dataset`
        - `device`, `device_name`, `threads` (Int64), `git_commit`
        - `start_time` (datetime64[ms, UTC]); `seconds` (float64), of a training by its own clock,
          otherwise from start to end
        - `epochs` (Int64): how many are recorded
        - `params.NAME`: Int64, float64 or boolean where all values are such, otherwise str
        - `metrics.NAME` (float64): the last value
        - `best.NAME` (float64): of every epoch, the lowest loss or highest accuracy
        - `data.training`, `data.validation`, `data.test`: SHA-256 of the images that it saw
        - `tags.NAME`: every other tag but MLflow's own

    Raises:
        BadRequest: there is no such experiment, study or run, or the filter is wrong.
        RunFailed: the store cannot be read.
    """
    source, chosen = _chosen(experiment, study, run_ids, filter)
    return _frame(source.runs([listed.run_id for listed in chosen]))


def epochs(
    experiment: str | pd.DataFrame | None = None,
    *,
    study: str | None = None,
    run_ids: Iterable[str] = (),
    filter: str = "",
) -> pd.DataFrame:
    """One row a run and epoch and metric; of groups and studies only their children have epochs.

    Args:
        experiment: as in `runs`, or a frame that `runs` returned, or a part of it.

    Returns:
        `run_id` (str), in the order of the runs; `epoch` (int64), from 1; `metric` (category);
        `value` (float64). What is measured once a run, as its whole time, stands at its last
        epoch.

    Raises:
        BadRequest, RunFailed: as `runs` does.
    """
    import pandas as pd

    if isinstance(experiment, pd.DataFrame):
        if experiment.empty:
            return _epochs_frame([])
        run_ids, experiment = list(experiment["run_id"]), None
    source, chosen = _chosen(experiment, study, run_ids, filter)
    return _epochs_frame(
        source.history([listed.run_id for listed in chosen if listed.kind not in PARENTS])
    )


def _chosen(
    experiment: str | None, study: str | None, run_ids: Iterable[str], query: str
) -> tuple[reader.Reader, list[reader.Listed]]:
    """The runs that are asked for, and who can read them."""
    if experiment is not None and study is not None:
        raise BadRequest("Choose an experiment or a study, not both.")
    source = reader.reader()
    name = experiment if study is None else study
    known = source.experiments() if name is not None else []
    if name is not None and name not in known:
        raise _unknown(name, study is not None, known, False)
    listed = source.listing(name, query)
    if name is not None:
        wanted = [run for run in listed if (run.kind in OF_STUDIES) == (study is not None)]
        if not wanted and not query:
            raise _unknown(name, study is not None, known, bool(listed))
        listed = wanted
    if isinstance(run_ids, str):
        run_ids = [run_ids]
    if asked := list(run_ids):
        whole = {run.run_id for run in listed}
        found = {i if i in whole else _run(i, listed).run_id for i in asked}
        listed = [run for run in listed if run.run_id in found]
    return source, listed


def _unknown(name: str, is_study: bool, known: Sequence[str], has_others: bool) -> BadRequest:
    """What to say of an experiment or study that has no runs."""
    kind, folder, command = (
        ("study", "studies", "study") if is_study else ("experiment", "experiments", "run")
    )
    if has_others:
        other = "an experiment" if is_study else "a study"
        return BadRequest(f"{kind}: {name} is {other}; ask for it as such.")
    if name in discovery.names(folder):
        return BadRequest(
            f"{kind}: {name} has no runs yet. Make some: python -m harness.{command} {name}"
        )
    # MLflow creates an experiment of the name Default by itself.
    others = [entry for entry in known if entry not in (name, "Default")]
    return BadRequest(f"{kind}: there are no runs of {name!r}. {nearest(name, others)}")


def _run(identity: str, listed: Sequence[reader.Listed]) -> reader.Listed:
    """The run whose id starts so.

    Raises:
        BadRequest: there is none, or more than one.
    """
    found = [run for run in listed if identity and run.run_id.startswith(identity)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(f"{run.run_id[: len(identity) + 4]} ({run.name})" for run in found[:3])
        raise BadRequest(f"run: {len(found)} runs start with {identity!r}: {some}. Add letters.")
    named = {run.run_id[:8]: run for run in reversed(listed)}
    hint = "There are none here." if not listed else nearest(identity[:8], named)
    if not hint.startswith("Did"):
        alike = [run for run in listed if run.name == identity] or list(listed)
        some = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in alike[:3])
        hint = f"The latest: {some}." if listed else hint
    raise BadRequest(f"run: there is no run {identity!r} here. {hint}")


def _frame(recorded: Sequence[reader.RecordedRun]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([_row(run) for run in recorded], columns=None if recorded else DTYPES)
    parameters, metrics, best, data, tags = (
        sorted(name for name in frame if name.startswith(f"{start}."))
        for start in ("params", "metrics", "best", "data", "tags")
    )
    for name in parameters:
        frame[name] = _typed(frame[name])
    frame = frame.astype({**DTYPES, **dict.fromkeys([*metrics, *best], "float64")})
    for name in [*metrics, *best]:
        frame[name] = _unclipped(frame[name])
    # One copy instead of one block of memory a column.
    return frame[[*DTYPES, *parameters, *metrics, *best, *data, *tags]].copy()


def _row(run: reader.RecordedRun) -> dict[str, Any]:
    """A run as a row: the values as they are recorded, under the names of their columns."""
    own = {
        name.removeprefix("harness."): value
        for name, value in run.tags.items()
        if name.startswith("harness.")
    }
    elapsed = None if run.end is None else (run.end - run.start) / 1000
    seed = run.params.get("seed", "")
    row = {
        "run_id": run.run_id,
        "name": run.name,
        **{name: own.pop(name, None) for name in TAGS},
        "mlflow_experiment": run.experiment,
        "parent": run.tags.get("mlflow.parentRunId"),
        "seed": int(seed) if seed.isdecimal() else None,
        "dataset": run.params.get("dataset"),
        "start_time": run.start,
        "seconds": run.metrics.get("time/total_seconds", elapsed),
        "epochs": run.num_epochs,
    }
    if row["threads"] is not None:
        row["threads"] = int(row["threads"])
    for name, value in own.items():
        if name.startswith("data."):
            row[name.removesuffix("_sha256")] = value
        else:
            row[f"tags.harness.{name}"] = value
    foreign = {n: v for n, v in run.tags.items() if not n.startswith(("harness.", "mlflow."))}
    for start, values in (
        ("tags", foreign),
        ("params", run.params),
        ("metrics", run.metrics),
        ("best", run.best),
    ):
        row |= {f"{start}.{name}": value for name, value in values.items()}
    return row


def _typed(values: pd.Series) -> pd.Series:
    """Recorded text as numbers or truth values where all of it is such."""
    import pandas as pd

    known = values.dropna()
    if known.isin(["True", "False"]).all():
        return values.map({"True": True, "False": False}).astype("boolean")
    try:
        numbers = pd.to_numeric(known)
    except (TypeError, ValueError):
        return values.astype("str")
    kind = "Int64" if pd.api.types.is_integer_dtype(numbers) else "float64"
    return numbers.astype(kind).reindex(values.index)


def _unclipped(values: pd.Series) -> pd.Series:
    """MLflow stores infinity as the largest number there is."""
    import numpy as np

    return values.mask(values.abs() == np.finfo(np.float64).max, values * 10)


def _epochs_frame(points: Sequence[reader.Point]) -> pd.DataFrame:
    import pandas as pd

    columns = zip(*points, strict=True) if points else ((), (), (), ())
    run_id, epoch, metric, value = map(list, columns)
    return pd.DataFrame(
        {
            "run_id": pd.Series(run_id, dtype="str"),
            "epoch": pd.Series(epoch, dtype="int64"),
            "metric": pd.Categorical(metric),
            "value": _unclipped(pd.Series(value, dtype="float64")),
        }
    )
