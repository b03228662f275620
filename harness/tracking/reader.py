"""Recorded runs, read in few queries: MLflow's public interface needs one for each metric of a run.

All knowledge of the tables of MLflow's SQLite file, and of the unpublished addresses of its server,
is in this module. `tests/tracking/test_reader.py` compares it with MLflow's own client.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from harness.base import project, sqlite
from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.privacy import mask
from harness.base.surroundings import without_foreign_settings
from harness.tracking import store_address
from harness.tracking.recorder_process import ENVIRONMENT
from harness.tracking.schema import ENDED, StoredRun

LAST = "last"
"""Stands for the latest run that was interrupted and can go on."""

PARENT = "mlflow.parentRunId"

HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
"""Where the pages of MLflow's server read the values of one metric of many runs."""

PAGE = 1000
"""Runs in one answer of a server."""

LONGEST_HISTORY = 25_000
"""The most values in one answer of a server, which drops any others without saying so."""

MOST_RUNS = 100
"""The most runs whose metric a server returns in one answer."""

Point = tuple[str, int, str, float]
"""Run id, epoch, metric, value."""


class Reader(Protocol):
    """Reads runs from a store. Deleted runs, and those of deleted experiments, are absent."""

    def experiments(self) -> list[str]:
        """Names of MLflow's experiments."""

    def runs(
        self, experiment: str | None = None, filter: str = "", run_ids: Sequence[str] = ()
    ) -> list[StoredRun]:
        """Runs, the newest first.

        Args:
            experiment: only those of this MLflow experiment.
            filter: only those that meet this condition in MLflow's filter language.
            run_ids: only these, by whole ids or unique first letters.

        Raises:
            BadRequest: the filter has an error, or an id is unknown or ambiguous.
        """

    def run(self, run_id: str) -> StoredRun:
        """One run, by its whole id.

        Raises:
            BadRequest: the store does not have it.
        """

    def find(self, identity: str, what: str = "run") -> StoredRun:
        """One run, by its whole id, by unique first letters, or `last`.

        `last` is the latest run, in no group or study, that was interrupted and can go on.

        Args:
            what: starts the message of an error.

        Raises:
            BadRequest: no run or more than one is meant.
        """

    def children(self, run_id: str) -> list[StoredRun]:
        """The runs of a group or study, the newest first."""

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        """Every value of these runs' metrics: in the order of the ids, by epoch, by metric.

        If an epoch was recorded twice, the later values count.
        """

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """One of a run's artifacts; None if the run has no such file."""


def open_reader() -> Reader:
    """The fastest reader of the store that `tracking_uri` names.

    Raises:
        BadRequest: MLFLOW_TRACKING_URI cannot name a store.
    """
    store_address.check_address()
    path = store_address.database_file()
    return DatabaseReader(path) if path else ClientReader()


class _Head(NamedTuple):
    """What a list of runs shows; the first fields of a `StoredRun`."""

    run_id: str
    name: str
    mlflow_experiment: str
    start: int
    end: int | None


class DatabaseReader:
    """Reads MLflow's SQLite file without importing MLflow; it never writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def experiments(self) -> list[str]:
        """See `Reader`."""
        rows = self._rows("SELECT name FROM experiments WHERE lifecycle_stage = 'active'")
        return [name for (name,) in rows]

    def runs(
        self, experiment: str | None = None, filter: str = "", run_ids: Sequence[str] = ()
    ) -> list[StoredRun]:
        """See `Reader`. A filter needs MLflow, which alone understands its language."""
        heads = self._heads("experiments.name = coalesce(?, experiments.name)", experiment)
        if filter and heads:
            meeting = {run.info.run_id for run in ClientReader().search(filter, experiment)}
            heads = [head for head in heads if head.run_id in meeting]
        return self._filled(_chosen(heads, run_ids) if run_ids else heads)

    def run(self, run_id: str) -> StoredRun:
        """See `Reader`."""
        found = self._filled(self._heads("runs.run_uuid = ?", run_id))
        if not found:
            raise _unknown_run(run_id)
        return found[0]

    def find(self, identity: str, what: str = "run") -> StoredRun:
        """See `Reader`."""
        if identity != LAST:
            return self._filled(_chosen(self._heads(), [identity], what))[0]
        having = "runs.run_uuid IN (SELECT run_uuid FROM tags WHERE key"
        heads = self._heads(
            f"{having} = 'harness.kind' AND value = 'run')"
            f" AND {having} = 'harness.outcome' AND value NOT IN {ENDED})"
            f" AND NOT {having} = '{PARENT}')"
        )
        return _last_unfinished(self._filled([head])[0] for head in heads)

    def children(self, run_id: str) -> list[StoredRun]:
        """See `Reader`."""
        children = f"SELECT run_uuid FROM tags WHERE key = '{PARENT}' AND value = ?"
        return self._filled(self._heads(f"runs.run_uuid IN ({children})", run_id))

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

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Reader`."""
        for (uri,) in self._rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id):
            parts = urlsplit(uri)
            if len(parts.scheme) > 1 and parts.scheme != "file":  # one letter is a Windows drive
                return ClientReader().artifact(run_id, path)
            location = _path_of(parts.path) if parts.scheme == "file" else uri
            # A relative one starts at the project, which may be another one than this.
            for root in (project.root(), self.path.parent.parent):
                file = root / location / path
                if file.is_file():
                    return file.read_bytes()
        return None

    def _heads(self, condition: str = "TRUE", *values: Any) -> list[_Head]:
        rows = self._rows(
            f"""
            SELECT run_uuid, coalesce(runs.name, ''), experiments.name,
                coalesce(start_time, 0), end_time
            FROM runs JOIN experiments USING (experiment_id)
            WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
                AND {condition}
            -- In the order of their creation: a clock may be set back.
            ORDER BY runs.rowid DESC
            """,
            *values,
        )
        return [_Head(*row) for row in rows]

    def _filled(self, heads: Sequence[_Head]) -> list[StoredRun]:
        """The runs with all that is recorded of them: one query for each table, for all runs."""
        if not heads:
            return []
        chosen = json.dumps([head.run_id for head in heads])

        def by_run(
            column: str, table: str, condition: str = "TRUE", *values: str
        ) -> dict[str, dict[str, Any]]:
            rows = self._rows(
                f"SELECT run_uuid, key, {column} FROM {table} "
                f"WHERE run_uuid IN (SELECT value FROM json_each(?)) AND {condition}",
                chosen,
                *values,
            )
            found: dict[str, dict[str, Any]] = defaultdict(dict)
            for run_id, key, value in rows:
                found[run_id][key] = value
            return found

        tags, params = by_run("value", "tags"), by_run("value", "params")
        metrics = by_run(_VALUE, "latest_metrics")
        epochs = by_run("step", "latest_metrics", "+key GLOB 'train/*'")
        found = [
            StoredRun(
                *head,
                tags=tags.get(head.run_id, {}),
                params=params.get(head.run_id, {}),
                metrics=_numbers(metrics.get(head.run_id, {})),
                num_epochs=max(epochs.get(head.run_id, {}).values(), default=None),
            )
            for head in heads
        ]
        judged = {name for run in found for name in run.metrics if run.best_of(name)}
        rows = self._rows(
            """
            SELECT run_uuid, key, min(value), max(value) FROM metrics
            WHERE run_uuid IN (SELECT value FROM json_each(?)) AND NOT is_nan
                -- With the plus sign before it, SQLite looks for no index on the key.
                AND +key IN (SELECT value FROM json_each(?))
            GROUP BY run_uuid, key
            """,
            chosen,
            json.dumps(list(judged)),
        )
        by_id = {run.run_id: run for run in found}
        for run_id, name, low, high in rows:
            if best := by_id[run_id].best_of(name):
                by_id[run_id].best[name] = _number(low if best == "min" else high)
        return found

    def _rows(self, query: str, *values: Any) -> list[Any]:
        if not self.path.exists():
            return []
        try:
            address = sqlite.reading_uri(self.path)
            with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RunFailed(f"The record store {self.path} cannot be read: {error}") from None


def _path_of(url_path: str) -> str:
    from urllib.request import url2pathname  # slow to import, and rarely needed

    return url2pathname(url_path)


_VALUE = "CASE WHEN is_nan THEN NULL ELSE value END"
"""MLflow stores 0 for NaN."""


class ClientReader:
    """Reads through MLflow's client: a tracking server, or a database other than SQLite."""

    def __init__(self) -> None:
        for name in (
            "MLFLOW_DISABLE_TELEMETRY",
            "DO_NOT_TRACK",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        ):
            os.environ.setdefault(name, ENVIRONMENT[name])
        os.environ |= without_foreign_settings(os.environ)
        from mlflow import MlflowClient  # it takes seconds, and most readers need none

        self.uri = store_address.uri_to_read()
        with _explained():
            self.client = MlflowClient(self.uri)
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, Any] = {}

    def experiments(self) -> list[str]:
        """See `Reader`."""
        return list(self._experiment_ids())

    def runs(
        self, experiment: str | None = None, filter: str = "", run_ids: Sequence[str] = ()
    ) -> list[StoredRun]:
        """See `Reader`."""
        found = self.search(filter, experiment)
        if run_ids:
            whole = [self._stored_id(run_id) for run_id in run_ids]
            chosen = {head.run_id for head in _chosen(map(_head, found), whole)}
            found = [run for run in found if run.info.run_id in chosen]
        return self._filled(found)

    def run(self, run_id: str) -> StoredRun:
        """See `Reader`."""
        run_id = self._stored_id(run_id)
        refused = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
        with _explained(refused, lambda error: _unknown_run(run_id)):
            run = self.client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            raise _unknown_run(run_id)
        self._runs[run_id] = run
        return self._filled([run])[0]

    def find(self, identity: str, what: str = "run") -> StoredRun:
        """See `Reader`."""
        if identity == LAST:
            # MLflow's filter language knows neither "or" nor a tag that is missing.
            found = self.search(
                " and ".join(
                    [
                        "tags.harness.kind = 'run'",
                        *(f"tags.harness.outcome != '{outcome}'" for outcome in ENDED),
                    ]
                )
            )
            alone = (run for run in found if PARENT not in run.data.tags)
            return _last_unfinished(self._filled([run])[0] for run in alone)
        run_id = self._stored_id(identity)
        if not re.fullmatch("[0-9a-f]{32}", run_id):
            (head,) = _chosen(map(_head, self.search()), [run_id], what)
            run_id = head.run_id
        try:
            return self.run(run_id)
        except BadRequest:
            raise _nothing_named(identity, list(map(_head, self.search())), what) from None

    def children(self, run_id: str) -> list[StoredRun]:
        """See `Reader`."""
        return self._filled(self.search(f"tags.`{PARENT}` = '{self._stored_id(run_id)}'"))

    def search(self, filter: str = "", experiment: str | None = None) -> list[Any]:
        """MLflow's own objects of the runs that meet a condition, the newest first.

        Raises:
            BadRequest: the filter has an error.
        """
        ids = [
            identity
            for name, identity in self._experiment_ids().items()
            if experiment in (None, name)
        ]
        with _explained({"INVALID_PARAMETER_VALUE"} if filter else (), _wrong_filter):
            found = _pages(
                lambda token: self.client.search_runs(
                    ids, filter, max_results=PAGE, page_token=token
                )
            )
        self._runs |= {run.info.run_id: run for run in found}
        return found

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        """See `Reader`."""
        if not self._runs.keys() >= set(run_ids):
            self.search()
        run_ids = [run_id for run_id in run_ids if run_id in self._runs]
        metrics = {name for run_id in run_ids for name in self._runs[run_id].data.metrics}
        latest = {
            (run_id, step, name): value
            for run_id, step, name, value in self._history(run_ids, sorted(metrics))
        }
        place = {run_id: number for number, run_id in enumerate(run_ids)}
        points = [(*key, _number(value)) for key, value in latest.items()]
        return sorted(points, key=lambda point: (place[point[0]], *point[1:3]))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Reader`."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                file = self.client.download_artifacts(self._stored_id(run_id), path, folder)
                return Path(file).read_bytes()
            except (MlflowException, OSError):
                return None

    def _experiment_ids(self) -> dict[str, str]:
        if not self._experiments:
            with _explained():
                found = _pages(lambda token: self.client.search_experiments(page_token=token))
            self._experiments = {entry.name: entry.experiment_id for entry in found}
        return self._experiments

    def _stored_id(self, identity: str) -> str:
        """The server's id of a run that began while the server was away, by its id until then."""
        folder = project.mlruns() / "spool" / store_address.fingerprint() / "ids"
        found = [file for file in folder.glob("*") if identity and file.name.startswith(identity)]
        return found[0].read_text() if len(found) == 1 else identity

    def _filled(self, found: Sequence[Any]) -> list[StoredRun]:
        """MLflow's runs as ours, without those of deleted experiments."""
        names = {identity: name for name, identity in self._experiment_ids().items()}
        found = [run for run in found if run.info.experiment_id in names]
        filled = [
            StoredRun(
                *_head(run, names),
                tags=run.data.tags,
                params=run.data.params,
                metrics=_numbers(run.data.metrics),
                num_epochs=max(
                    (m.step for m in run.data._metric_objs if m.key.startswith("train/")),
                    default=None,
                ),
            )
            for run in found
        ]
        by_id = {run.run_id: run for run in filled}
        judged = {name for run in filled for name in run.metrics if run.best_of(name)}
        for run_id, _, name, value in self._history(list(by_id), sorted(judged)):
            best = by_id[run_id].best
            if (direction := by_id[run_id].best_of(name)) and not math.isnan(value):
                pick = min if direction == "min" else max
                best[name] = pick(best.get(name, _number(value)), _number(value))
        return filled

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
        if values is not None:  # the server left some out
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
        """What the server's own pages ask for; None if the store does not offer it."""
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


def _head(run: Any, names: Mapping[str, str] | None = None) -> _Head:
    """What a list shows of one of MLflow's runs."""
    info = run.info
    name = names[info.experiment_id] if names else ""
    return _Head(info.run_id, info.run_name or "", name, info.start_time or 0, info.end_time)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    """A metric's value; MLflow stores infinity as the largest number, and NaN apart."""
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _chosen(heads: Iterable[_Head], identities: Sequence[str], what: str = "run") -> list[_Head]:
    """The runs of these ids or first letters, in their own order.

    Raises:
        BadRequest: an id is unknown, or several runs start with it.
    """
    listed = list(heads)
    whole = {head.run_id for head in listed}
    chosen = {
        identity if identity in whole else _named(identity, listed, what).run_id
        for identity in identities
    }
    return [head for head in listed if head.run_id in chosen]


def _named(identity: str, listed: Sequence[_Head], what: str) -> _Head:
    found = [head for head in listed if identity and head.run_id.startswith(identity)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise _nothing_named(identity, listed, what)
    some = ", ".join(f"{head.run_id[: len(identity) + 4]} ({head.name})" for head in found[:3])
    raise BadRequest(f"{what}: {len(found)} runs start with {identity!r}: {some}. Add letters.")


def _nothing_named(identity: str, listed: Sequence[_Head], what: str) -> BadRequest:
    """What to answer if no run has an id: the nearest ones, or else the latest."""
    hint = "There are none here."
    if listed:
        hint = nearest(identity[:8], {head.run_id[:8]: head for head in reversed(listed)})
        if not hint.startswith("Did"):
            alike = [head for head in listed if head.name == identity] or listed
            some = ", ".join(f"{head.run_id[:8]} ({head.name})" for head in alike[:3])
            hint = f"The latest: {some}."
    return BadRequest(f"{what}: there is no run {identity!r} here. {hint}")


def _unknown_run(run_id: str) -> BadRequest:
    return BadRequest(f"run: there is no run {run_id!r} in {store_address.described()}.")


def _last_unfinished(candidates: Iterable[StoredRun]) -> StoredRun:
    """The first of the unfinished runs that no living process works on."""
    unjudged = ""
    for run in candidates:
        if not (run.experiment and run.fields):
            warnings.warn(
                f"skipped {run.run_id}: its record does not say what was trained", stacklevel=2
            )
        elif run.outcome != "running" or run.owner is None or run.is_abandoned:
            return run
        elif not (unjudged or run.owner.is_here):
            unjudged = (
                f"\n{run.run_id} is recorded as running, by a process that cannot be judged from "
                f"here. If it has ended: python -m harness.run --resume {run.run_id} --take-over"
            )
    raise BadRequest(
        "There is no run here that was interrupted and can go on. "
        f"(A group is repeated; a study goes on with its own command.){unjudged}"
    )


def _wrong_filter(error: Exception) -> BadRequest:
    return BadRequest(f"filter: {mask(str(error))}")


def _pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """All entries of an answer that comes in pages; `ask` takes the token of a page."""
    found, token = [], None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


@contextmanager
def _explained(
    refused: Collection[str] = (), request: Callable[[Exception], BadRequest] = _wrong_filter
) -> Iterator[None]:
    """Turn an error of the store into one line.

    Args:
        refused: MLflow's codes for errors of the user's; for these, `request` gives the message.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ValueError) as error:
        if getattr(error, "error_code", None) in refused:
            raise request(error) from None
        reason = mask(str(error).partition("\n")[0])
        described = store_address.described()
        raise RunFailed(f"The record store {described} cannot be read: {reason}") from error
