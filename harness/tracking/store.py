"""The MLflow store: opening it, creating it on first use, its experiments, its unfinished runs.

The embedded store is a SQLite file below `mlruns/`. Artifact locations are relative to the
project's root, so that nothing is lost when a checkout moves. A process that opens the store must
therefore run in the root.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_database
from sqlalchemy import create_engine

from harness.base import project, sqlite
from harness.base.command_line import quoted
from harness.base.errors import RecordLost, RunFailed
from harness.base.ownership import is_owner_dead
from harness.base.privacy import mask
from harness.tracking import store_address
from harness.tracking.schema import last_seen

LOCK_SECONDS = 60.0
"""Longest wait for another process that creates or extends the store."""

# Whatever MLflow logs here, traceback included, it also raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

LATEST_FIRST = ["attributes.start_time DESC"]

STATES = """
    SELECT runs.run_uuid, runs.status, outcomes.value, owners.value, runs.start_time, beats.value
    FROM runs
    LEFT JOIN tags AS outcomes
        ON outcomes.key = 'harness.outcome' AND outcomes.run_uuid = runs.run_uuid
    LEFT JOIN tags AS owners
        ON owners.key = 'harness.owner' AND owners.run_uuid = runs.run_uuid
    LEFT JOIN tags AS beats
        ON beats.key = 'harness.heartbeat' AND beats.run_uuid = runs.run_uuid
    WHERE runs.lifecycle_stage = 'active' AND """


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        is_running: Whether MLflow's status says so.
        outcome: The harness's tag; "" for runs that it did not record.
        owner: The process that records the run; "" if unknown.
        last_seen: When that process was last known to be alive, in seconds since 1970.
    """

    run_id: str
    is_running: bool
    outcome: str
    owner: str
    last_seen: float


class Store:
    """An open MLflow store, embedded or on a server."""

    def __init__(self) -> None:
        """Open the store that `tracking_uri` names; an embedded one is created on first use.

        One that may not be written is opened for reading.

        Raises:
            RunFailed: It cannot be opened.
        """
        self.uri = store_address.uri_to_read()
        self.database = store_address.database_file()
        self._reads_only = store_address.is_read_only()
        try:
            if self.database:
                self.database.parent.mkdir(parents=True, exist_ok=True)
                store_address.check_database(self.database, reading=self._reads_only)
            with self._lock():
                is_new = bool(self.database and not self._reads_only and _created(self.database))
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
                if is_new:
                    self._make_movable("0")  # MLflow creates this experiment in every new store
        except RunFailed:
            raise
        except Exception as error:  # MLflow, SQLAlchemy and its drivers each raise their own
            raise RunFailed(self._explained(error)) from None
        self._opened = self._identity()

    def check_is_there(self) -> None:
        """Make sure that what is written reaches a file that can be found again.

        Raises:
            RecordLost: The embedded store's file was deleted or replaced since it was opened.
        """
        if self._identity() != self._opened:
            raise RecordLost(f"{self.database} was deleted or replaced while runs were recorded.")

    def _identity(self) -> tuple[int, int] | None:
        """What tells the embedded store's file from another one of that name."""
        if not self.database:
            return None
        try:
            found = self.database.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def is_remote(self) -> bool:
        """Whether it is a tracking server, which may be away for a while."""
        return self.uri.startswith(("http://", "https://"))

    def experiment_id(self, name: str, about: str = "") -> str:
        """The id of an experiment, which is created on first use.

        Args:
            about: The description of a new one, in Markdown.

        Raises:
            RunFailed: It was deleted in MLflow.
        """
        with self._lock():
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                return self._create_experiment(name, about)
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            restore = self.restoring(f"experiments restore -x {experiment.experiment_id}")
            raise RunFailed(
                f"The MLflow experiment {name!r} was deleted. Restore it with:\n{restore}"
            )
        return str(experiment.experiment_id)

    def restoring(self, words: str) -> str:
        """The command line that has MLflow restore something in this store."""
        command = f"python -m mlflow {words}"
        if not self.database:
            return command
        return f"{quoted(f'MLFLOW_TRACKING_URI={sqlite.file_address(self.database)}')} {command}"

    def search(self, condition: str, experiment_ids: list[str] | None = None) -> Iterator[Run]:
        """All runs that match a condition in MLflow's filter language, the latest first."""
        if experiment_ids is None:
            experiment_ids = [found.experiment_id for found in self.client.search_experiments()]
        token = None
        while True:
            page = self.client.search_runs(
                experiment_ids, condition, order_by=LATEST_FIRST, page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def state(self, run_id: str) -> RunState:
        """How far a run is at this moment.

        Raises:
            MlflowException: The store does not know it.
        """
        return _state(self.client.get_run(run_id))

    def running(self) -> list[RunState]:
        """All runs whose status is running. On the embedded store this takes one quick query."""
        if self.database:
            return self._states("runs.status = 'RUNNING'")
        return [_state(run) for run in self.search("attributes.status = 'RUNNING'")]

    def children(self, parent: str) -> list[RunState]:
        """All runs below a run."""
        if self.database:
            below = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
            return self._states(f"runs.run_uuid IN ({below})", parent)
        experiment = self.client.get_run(parent).info.experiment_id
        condition = f"tags.`mlflow.parentRunId` = '{parent}'"
        return [_state(run) for run in self.search(condition, [experiment])]

    def is_left_open(self, state: RunState) -> bool:
        """Whether a run's process died before it had ended the run."""
        if not state.is_running or not is_owner_dead(state.owner, state.last_seen):
            return False
        # After this state was read, the process may have ended the run properly and then exited.
        return self.state(state.run_id).is_running

    def _states(self, condition: str, *values: str) -> list[RunState]:
        """Read the states directly: MLflow's search would load every metric of every run."""
        assert self.database
        address = sqlite.reading_uri(self.database)
        with closing(sqlite3.connect(address, uri=True, timeout=sqlite.BUSY_SECONDS)) as connection:
            rows = connection.execute(STATES + condition, values).fetchall()
        return [
            RunState(
                run_id, status == "RUNNING", outcome or "", owner or "", last_seen(start, beat)
            )
            for run_id, status, outcome, owner, start, beat in rows
        ]

    def _create_experiment(self, name: str, about: str) -> str:
        tags = {"mlflow.note.content": about} if about else {}
        try:
            experiment_id = str(self.client.create_experiment(name, tags=tags))
        except MlflowException as error:
            # Another machine may have just created it on the same server.
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                raise RunFailed(f"MLflow cannot create {name!r}: {error.message}") from None
            return str(experiment.experiment_id)
        self._make_movable(experiment_id)
        return experiment_id

    def _make_movable(self, experiment_id: str) -> None:
        """Place an experiment's artifacts beside the embedded store, by a relative path."""
        if not self.database:
            return
        location = self.database.parent / "artifacts" / experiment_id
        if location.is_relative_to(project.root()):
            location = location.relative_to(project.root())
        with (
            closing(sqlite3.connect(self.database, timeout=sqlite.BUSY_SECONDS)) as connection,
            connection,
        ):
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (location.as_posix(), experiment_id),
            )

    def _lock(self) -> AbstractContextManager[object]:
        """Keep other processes out while the embedded store is created or extended.

        MLflow's migrations crash if several processes run them on a new file at once.
        """
        if not self.database or self._reads_only:
            return nullcontext()
        return FileLock(self.database.with_suffix(".lock"), LOCK_SECONDS)

    def _explained(self, error: Exception) -> str:
        """Why the store cannot be opened, in one sentence."""
        text = str(error)
        if self.database and (
            versions := re.search(r"found version (\w+), but expe\w+ (\w+)", text)
        ):
            library = f"MLflow {importlib.metadata.version('mlflow')}"
            return (
                f"{self.database}: written by another version of MLflow (its tables have version "
                f"{versions[1]}, {library} expects {versions[2]}). Install that version, or choose "
                "another database."
            )
        reason = mask(text).partition("\n")[0]
        if self.database and re.search("malformed|is not a database", reason):
            return (
                f"{self.database}: the database is damaged ({reason}). "
                "Restore a backup, or move the file away to start a new one."
            )
        return f"The record store {mask(self.uri)} cannot be opened: {reason}"


def _state(run: Run) -> RunState:
    tags = run.data.tags
    return RunState(
        run.info.run_id,
        run.info.status == "RUNNING",
        tags.get("harness.outcome", ""),
        tags.get("harness.owner", ""),
        last_seen(run.info.start_time, tags.get("harness.heartbeat")),
    )


def _created(file: Path) -> bool:
    """Create the database if it is missing; a process that dies meanwhile leaves none."""
    if file.exists() and file.stat().st_size:
        return False
    unfinished = file.with_suffix(".unfinished")
    # With their journals: SQLite would apply those of a deleted file to the new one.
    for left in (*file.parent.glob(f"{unfinished.name}*"), *file.parent.glob(f"{file.name}-*")):
        left.unlink()
    engine = create_engine(sqlite.file_address(unfinished))
    try:
        mlflow_database._initialize_tables(engine)
    finally:
        engine.dispose()
    # Readers and one writer may work at once; the setting stays in the file.
    with closing(sqlite3.connect(unfinished)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    unfinished.replace(file)
    return True
