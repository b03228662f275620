"""Many runs at once, past MLflow's public interface, which asks for one metric of one run a call.

Everything that knows the tables of MLflow's SQLite file, or the unpublished addresses of its
server, stands in this module; `tests/test_reading.py` holds it against MLflow's own client.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.base.errors import BadRequest, RunFailed
from harness.base.privacy import mask
from harness.tracking.recorder_process import ENVIRONMENT
from harness.tracking.store_address import database_file, described, tracking_uri

BEST = {"loss": min, "accuracy": max}
"""What is the best of the metrics that end so."""

HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
"""Where the pages of MLflow's server get the values of one metric of many runs from."""

PAGE = 1000
"""Runs that a server is asked for at once."""

LONGEST_HISTORY = 25_000
"""Values that a server returns at most in answer to one request, without a word about the rest."""

MOST_RUNS = 100
"""Runs whose metric a server tells at once."""


@dataclass(frozen=True)
class Listed:
    """A run in the list of all runs.

    Attributes:
        kind: as the harness recorded it; "" for a run that it did not record.
    """

    run_id: str
    name: str
    kind: str


@dataclass
class RecordedRun:
    """A run as the store has it.

    Attributes:
        experiment: MLflow's experiment.
        start: milliseconds since 1970.
        end: the same; None while it runs.
        metrics: the last value of each; NaN as it is, infinity as MLflow's largest number.
        best: lowest finite loss, highest finite accuracy, by the metric's name.
        num_epochs: the last epoch whose training loss is recorded; None where there is none.
    """

    run_id: str
    name: str
    experiment: str
    start: int
    end: int | None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    num_epochs: int | None = None


Point = tuple[str, int, str, float]
"""Run id, epoch, metric, value."""


class Reader(Protocol):
    """Reads many runs with few questions. Deleted runs and experiments are not there."""

    def experiments(self) -> list[str]:
        """Names of MLflow's experiments."""

    def listing(self, experiment: str | None, query: str = "") -> list[Listed]:
        """All runs of one of MLflow's experiments, or of all; the newest first.

        Args:
            query: a condition in MLflow's filter language.

        Raises:
            BadRequest: it cannot be understood.
        """

    def runs(self, run_ids: Sequence[str]) -> list[RecordedRun]:
        """These runs, in this order."""

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        """Every value of these runs' metrics: by run in this order, by epoch, by metric.

        Of an epoch that was recorded twice, the later values count.
        """


def best_of(metric: str) -> Any:
    """`min` or `max` for a metric whose best is known by its name; None for others."""
    return BEST.get(metric.rpartition("/")[2])


def reader() -> Reader:
    """The quickest reader of the store that `tracking_uri` names."""
    path = database_file()
    return DatabaseReader(path) if path else ClientReader()


class DatabaseReader:
    """Reads MLflow's SQLite file by itself, without importing MLflow; it never writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def experiments(self) -> list[str]:
        """See `Reader`."""
        rows = self._rows("SELECT name FROM experiments WHERE lifecycle_stage = 'active'")
        return [name for (name,) in rows]

    def listing(self, experiment: str | None, query: str = "") -> list[Listed]:
        """See `Reader`; empty where there is no file. MLflow alone understands its language."""
        if query:
            return ClientReader().listing(experiment, query) if self.path.exists() else []
        rows = self._rows(
            """
            SELECT runs.run_uuid, runs.name, kinds.value
            FROM runs
            JOIN experiments USING (experiment_id)
            LEFT JOIN tags AS kinds
                ON kinds.run_uuid = runs.run_uuid AND kinds.key = 'harness.kind'
            WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
                AND experiments.name = coalesce(?, experiments.name)
            ORDER BY runs.start_time DESC, runs.run_uuid
            """,
            experiment,
        )
        return [Listed(run_id, name or "", kind or "") for run_id, name, kind in rows]

    def runs(self, run_ids: Sequence[str]) -> list[RecordedRun]:
        """See `Reader`."""
        chosen = json.dumps(list(run_ids))
        heads = self._rows(
            """
            SELECT run_uuid, runs.name, experiments.name, start_time, end_time
            FROM (SELECT key AS place, value AS run_uuid FROM json_each(?))
            JOIN runs USING (run_uuid)
            JOIN experiments USING (experiment_id)
            ORDER BY place
            """,
            chosen,
        )
        found = {
            run_id: RecordedRun(run_id, name or "", experiment, start, end)
            for run_id, name, experiment, start, end in heads
        }
        of_chosen = "WHERE run_uuid IN (SELECT value FROM json_each(?))"
        for run_id, name, value in self._rows(
            f"SELECT run_uuid, key, value FROM tags {of_chosen}", chosen
        ):
            found[run_id].tags[name] = value
        for run_id, name, value in self._rows(
            f"SELECT run_uuid, key, value FROM params {of_chosen}", chosen
        ):
            found[run_id].params[name] = value
        for run_id, name, value, step in self._rows(
            f"SELECT run_uuid, key, {_VALUE}, step FROM latest_metrics {of_chosen}", chosen
        ):
            found[run_id].metrics[name] = _number(value)
            if name == "train/loss":
                found[run_id].num_epochs = step
        ends = " OR ".join(f"key = '{end}' OR key GLOB '*/{end}'" for end in BEST)
        for run_id, name, low, high in self._rows(
            f"""
            SELECT run_uuid, key, min(value), max(value)
            FROM metrics {of_chosen} AND NOT is_nan AND ({ends})
            GROUP BY run_uuid, key
            """,
            chosen,
        ):
            found[run_id].best[name] = best_of(name)(low, high)
        return list(found.values())

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        """See `Reader`."""
        rows = self._rows(
            # Beside max(), SQLite takes the other columns from the row that has the maximum.
            f"""
            SELECT run_uuid, step, metrics.key, {_VALUE}, max(timestamp)
            FROM (SELECT key AS place, value AS run_uuid FROM json_each(?))
            JOIN metrics USING (run_uuid)
            GROUP BY place, run_uuid, step, metrics.key
            ORDER BY place, step, metrics.key
            """,
            json.dumps(list(run_ids)),
        )
        return [(run_id, step, name, _number(value)) for run_id, step, name, value, _ in rows]

    def _rows(self, query: str, *values: Any) -> list[Any]:
        if not self.path.exists():
            return []
        try:
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RunFailed(f"The record store {self.path} cannot be read: {error}") from None


_VALUE = "CASE WHEN is_nan THEN NULL ELSE value END"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


class ClientReader:
    """Reads through MLflow's client: a tracking server in pages, another database as it goes."""

    def __init__(self) -> None:
        for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
            os.environ.setdefault(name, ENVIRONMENT[name])
        from mlflow import MlflowClient

        self.uri = tracking_uri()
        with _explained():
            self.client = MlflowClient(self.uri)
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, Any] = {}

    def experiments(self) -> list[str]:
        """See `Reader`."""
        if not self._experiments:
            found = _pages(lambda token: self.client.search_experiments(page_token=token))
            self._experiments = {entry.name: entry.experiment_id for entry in found}
        return list(self._experiments)

    def listing(self, experiment: str | None, query: str = "") -> list[Listed]:
        """See `Reader`."""
        self.experiments()
        ids = [
            identity for name, identity in self._experiments.items() if experiment in (None, name)
        ]
        try:
            found = _pages(
                lambda token: self.client.search_runs(
                    ids, query, max_results=PAGE, page_token=token
                )
            )
        except RunFailed as error:
            cause = error.__cause__
            if query and getattr(cause, "error_code", "") == "INVALID_PARAMETER_VALUE":
                raise BadRequest(f"filter: {mask(str(cause))}") from None
            raise
        self._runs |= {run.info.run_id: run for run in found}
        return [
            Listed(run.info.run_id, run.info.run_name or "", run.data.tags.get("harness.kind", ""))
            for run in found
        ]

    def runs(self, run_ids: Sequence[str]) -> list[RecordedRun]:
        """See `Reader`; `listing` must have named them."""
        found = [self._runs[run_id] for run_id in run_ids]
        names = {identity: name for name, identity in self._experiments.items()}
        best: dict[str, dict[str, float]] = {run_id: {} for run_id in run_ids}
        judged = {name for run in found for name in run.data.metrics if best_of(name)}
        for run_id, _, name, value in self._history(run_ids, sorted(judged)):
            if value == value:
                known = best[run_id].get(name, value)
                best[run_id][name] = best_of(name)(known, value)
        return [
            RecordedRun(
                run_id=run.info.run_id,
                name=run.info.run_name or "",
                experiment=names[run.info.experiment_id],
                start=run.info.start_time,
                end=run.info.end_time,
                tags=run.data.tags,
                params=run.data.params,
                metrics=run.data.metrics,
                best=best[run.info.run_id],
                num_epochs=next(
                    (m.step for m in run.data._metric_objs if m.key == "train/loss"), None
                ),
            )
            for run in found
        ]

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        """See `Reader`; `listing` must have named them."""
        metrics = {name for run_id in run_ids for name in self._runs[run_id].data.metrics}
        latest = {
            (run_id, step, name): value
            for run_id, step, name, value in self._history(run_ids, sorted(metrics))
        }
        place = {run_id: number for number, run_id in enumerate(run_ids)}
        points = [(*key, value) for key, value in latest.items()]
        return sorted(points, key=lambda point: (place[point[0]], *point[1:3]))

    def _history(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[Point]:
        """Every value of some metrics, by time."""
        for metric in metrics:
            having = [i for i in run_ids if metric in self._runs[i].data.metrics]
            for start in range(0, len(having), MOST_RUNS):
                yield from self._values(having[start : start + MOST_RUNS], metric)

    def _values(self, run_ids: list[str], metric: str) -> list[Point]:
        """Every value of one metric of at most `MOST_RUNS` runs, by time."""
        values = self._values_at_once(run_ids, metric) if len(run_ids) > 1 else None
        if values is not None and len(values) < LONGEST_HISTORY:
            return [(v["run_id"], int(v["step"]), metric, float(v["value"])) for v in values]
        if values is not None:  # some were left out
            half = len(run_ids) // 2
            return self._values(run_ids[:half], metric) + self._values(run_ids[half:], metric)
        with _explained():
            return [
                (run_id, value.step, metric, value.value)
                for run_id in run_ids
                for value in sorted(
                    self.client.get_metric_history(run_id, metric), key=lambda m: m.timestamp
                )
            ]

    def _values_at_once(self, run_ids: list[str], metric: str) -> list[dict[str, Any]] | None:
        """What the server's own pages ask for; None where the store is no such server."""
        if not self.uri.startswith("http"):
            return None
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        query = [("metric_key", metric), *(("run_id", run_id) for run_id in run_ids)]
        with _explained():
            credentials = get_default_host_creds(self.uri)
            reply = http_request(credentials, HISTORIES, "GET", params=query)
            if reply.status_code == 404:
                return None
            values: list[dict[str, Any]] = verify_rest_response(reply, HISTORIES).json()["metrics"]
            return values


def _pages(ask: Any) -> list[Any]:
    """All entries of an answer that comes in pages; `ask` takes the token of a page."""
    found, token = [], None
    with _explained():
        while True:
            page = ask(token)
            found += page
            token = page.token
            if not token:
                return found


@contextmanager
def _explained() -> Iterator[None]:
    """Say what went wrong with the store in one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ValueError) as error:
        reason = mask(str(error).partition("\n")[0])
        raise RunFailed(f"The record store {described()} cannot be read: {reason}") from error
