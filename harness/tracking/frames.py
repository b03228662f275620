"""Recorded runs as pandas DataFrames: one row per run, or one row per run, epoch and metric.

`import harness; harness.runs()` and `harness.epochs()` are these functions. pandas takes most of a
second to import, and only they need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness.tracking.reader import Point, open_reader
from harness.tracking.schema import StoredRun
from harness.tracking.selection import PARENTS, select_runs

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {
    **dict.fromkeys(("run_id", "name", "kind", "experiment", "mlflow_experiment"), "str"),
    **dict.fromkeys(("parent", "outcome"), "str"),
    "seed": "Int64",
    **dict.fromkeys(("dataset", "device", "device_name"), "str"),
    "threads": "Int64",
    **dict.fromkeys(("git_commit", "git_state"), "str"),
    "start_time": "datetime64[ms, UTC]",
    "seconds": "float64",
    "epochs": "Int64",
}
"""The columns that every frame of runs has, in this order."""

GROUPS = {
    "params": "",
    **dict.fromkeys(("metrics", "best"), "float64"),
    **dict.fromkeys(("data", "tags"), "str"),
}
"""The other columns start with one of these words and a dot; the dtype of each group."""

ELSEWHERE = (
    *("kind", "experiment", "outcome", "device", "device_name", "threads"),
    *("git_commit", "git_state"),
)
"""Tags of the harness that are columns under their own name."""

REPEATED = ("fields", "parameters")
"""Tags of the harness that hold what the parameters hold."""


def run_columns(run: StoredRun) -> dict[str, Any]:
    """A run's values by column, as `runs` describes them; None for NaN.

    Columns that the run has no value for are missing, except those of `DTYPES`, which are None.
    """
    elapsed = None if run.end is None else (run.end - run.start) / 1000
    if elapsed is not None and elapsed < 0:  # the clock was set back
        elapsed = None
    threads = run.tag("threads") or ""
    own: dict[str, Any] = {
        "run_id": run.run_id,
        "name": run.name,
        "kind": run.kind or None,
        "experiment": run.experiment or None,
        "mlflow_experiment": run.mlflow_experiment,
        "parent": run.parent,
        "outcome": run.outcome or None,
        "seed": run.seed,
        "dataset": run.dataset,
        "device": run.tag("device"),
        "device_name": run.tag("device_name"),
        "threads": int(threads) if threads.isdecimal() else None,
        "git_commit": run.tag("git_commit"),
        "git_state": run.tag("git_state"),
        "start_time": datetime.fromtimestamp(run.start / 1000, UTC),
        "seconds": run.metrics.get("time/total_seconds", elapsed),
        "epochs": run.num_epochs,
    }
    for name, value in run.parameters.items():
        own[f"params.{name}"] = str(value) if isinstance(value, list | dict) else value
    for name, number in run.metrics.items():
        own[f"metrics.{name}"] = None if number != number else number
    for name, number in run.best.items():
        own[f"best.{name}"] = number
    for name, digest in run.data.items():
        own[f"data.{name}"] = digest
    for name, text in run.tags.items():
        group, _, rest = name.partition(".")
        if group == "mlflow" or (
            group == "harness" and (rest in (*ELSEWHERE, *REPEATED) or rest.startswith("data."))
        ):
            continue
        own[f"tags.{name}"] = text
    return own


def ordered_columns(names: Iterable[str]) -> list[str]:
    """Names of columns in the order of a frame of runs: `DTYPES`, then by group and name."""
    distinct = set(names)
    fixed = [name for name in DTYPES if name in distinct]
    return fixed + [
        name
        for group in GROUPS
        for name in sorted(distinct.difference(fixed))
        if name.startswith(f"{group}.")
    ]


def runs(
    experiment: str | None = None,
    *,
    study: str | None = None,
    run_ids: Iterable[str] = (),
    filter: str = "",
) -> pd.DataFrame:
    """One row per run, the newest first; every argument narrows the selection.

    Args:
        experiment: runs of this experiment, without those of studies.
        study: runs of this study: its trials, its confirmations, and its own.
        run_ids: these runs, in any order; the first letters of an id are enough.
        filter: a condition in MLflow's language: `params.lr = '0.1' and metrics.x > 0.9`.

    Returns:
        These columns, str if no dtype is given here (missing values are NaN or NA):

        - `run_id`, `name`
        - `kind`: `run`, `group` (of seeds), `study`, `trial`, `confirm`, ...
        - `experiment`: what was trained; `mlflow_experiment`: where MLflow lists it
        - `parent`: run id of the group or study that it belongs to
        - `outcome`: `completed`, `pruned`, `diverged`, `collapsed`, `timed out`, `interrupted`,
          `failed` or `running`
        - `seed` (Int64; missing for a group), `dataset`
        - `device`, `device_name`, `threads` (Int64), `git_commit`
        - `git_state`: `clean`, `dirty` (with changes since the commit), `unknown`, or `outside` if
          the experiment was in no file of the project
        - `start_time` (datetime64[ms, UTC]); `seconds` (float64), of a training by its own clock,
          otherwise from start to end
        - `epochs` (Int64): how many are recorded
        - `params.NAME`: Int64, float64, boolean or str if all values have that type; otherwise
          object, as with whole numbers beyond 64 bits. Text stays text, even if it looks like a
          number
        - `metrics.NAME` (float64): the last value
        - `best.NAME` (float64): over all epochs, the best value of each metric that has a direction
        - `data.training`, `data.validation`, `data.test`: SHA-256 of the examples that it saw
        - `tags.NAME`: every other tag except MLflow's own

    Raises:
        BadRequest: the experiment, study or run does not exist, or the filter has an error.
        RunFailed: the store cannot be read.
    """
    return _frame(
        select_runs(open_reader(), experiment, study=study, run_ids=_listed(run_ids), filter=filter)
    )


def epochs(
    experiment: str | pd.DataFrame | None = None,
    *,
    study: str | None = None,
    run_ids: Iterable[str] = (),
    filter: str = "",
) -> pd.DataFrame:
    """One row per run, epoch and metric; groups and studies have none, but their children do.

    Args:
        experiment: as in `runs`, or a frame that `runs` returned, or a part of it.

    Returns:
        `run_id` (str), in the order of the runs; `epoch` (int64), from 1; `metric` (category);
        `value` (float64). What is measured once per run, such as its total time, is at its last
        epoch.

    Raises:
        BadRequest, RunFailed: as `runs` does.
    """
    import pandas as pd

    reader = open_reader()
    if isinstance(experiment, pd.DataFrame):
        chosen = list(experiment["run_id"][~experiment["kind"].isin(PARENTS)])
    else:
        found = select_runs(
            reader, experiment, study=study, run_ids=_listed(run_ids), filter=filter
        )
        chosen = [run.run_id for run in found if run.kind not in PARENTS]
    points = reader.history(chosen) if chosen else []
    return _epochs_frame([point for point in points if point[1] > 0])  # 0: before the first epoch


def _listed(run_ids: Iterable[str]) -> list[str]:
    return [run_ids] if isinstance(run_ids, str) else list(run_ids)


def _frame(found: Sequence[StoredRun]) -> pd.DataFrame:
    import pandas as pd

    rows = [run_columns(run) for run in found]
    names = ordered_columns([*DTYPES, *(name for row in rows for name in row)])
    columns = {}
    for name in names:
        dtype = DTYPES.get(name) or GROUPS.get(name.partition(".")[0])
        values = [row.get(name) for row in rows]
        if dtype in ("", "Int64") and values:
            dtype = _dtype(values)
        if name == "start_time":
            columns[name] = pd.Series([run.start for run in found], dtype="int64").astype(dtype)
        else:
            columns[name] = _text(values) if dtype == "str" else pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


def _text(values: Sequence[str | None]) -> pd.Series:
    """A column of dtype str, which pandas 2 knows by this name only."""
    import pandas as pd

    return pd.Series(values, dtype=pd.StringDtype(na_value=float("nan")))


def _dtype(values: Sequence[Any]) -> str:
    """The dtype that holds these values exactly; None is a missing one."""
    known = [value for value in values if value is not None]
    kinds = set(map(type, known))
    if kinds <= {int} and all(-(2**63) <= value < 2**63 for value in known):
        return "Int64"
    if kinds == {int, float} and all(abs(v) <= 2**53 for v in known if type(v) is int):
        return "float64"
    if len(kinds) > 1:
        return "object"
    return {float: "float64", bool: "boolean", str: "str"}.get(kinds.pop(), "object")


def _epochs_frame(points: Sequence[Point]) -> pd.DataFrame:
    import pandas as pd

    columns = zip(*points, strict=True) if points else ((), (), (), ())
    run_id, epoch, metric, value = map(list, columns)
    return pd.DataFrame(
        {
            "run_id": _text(run_id),
            "epoch": pd.Series(epoch, dtype="int64"),
            "metric": pd.Categorical(metric),
            "value": pd.Series(value, dtype="float64"),
        }
    )
