"""The MLflow store: where it is, how it comes into being, its experiments.

The embedded store is a SQLite file under `mlruns/`. Artifact locations are kept relative to the
project's root, so that a moved checkout loses nothing; whoever opens the store stands in the root.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_database
from sqlalchemy import create_engine

from harness.base.errors import RunFailed
from harness.base.ownership import is_owner_dead
from harness.base.privacy import mask
from harness.base.project import ROOT
from harness.tracking import store_address

LOCK_SECONDS = 60.0
"""Longest wait for another process that creates or extends the store."""

# Whatever it logs, traceback and all, it also raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

LATEST_FIRST = ["attributes.start_time DESC"]


class Store:
    """An open MLflow store, embedded or on a server."""

    def __init__(self) -> None:
        """Open the store that `tracking_uri` names, creating the embedded one on first use.

        Raises:
            RunFailed: it cannot be opened.
        """
        self.uri = store_address.tracking_uri()
        self.database = store_address.database_file()
        try:
            if self.database:
                self.database.parent.mkdir(parents=True, exist_ok=True)
                store_address.check_database(self.database)
            with self._lock():
                is_new = self.database is not None and _created(self.database)
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
                if is_new:
                    self._make_movable("0")  # which MLflow puts into every new store
        except RunFailed:
            raise
        except Exception as error:  # MLflow, SQLAlchemy and its drivers each raise their own
            reason = mask(str(error)).partition("\n")[0]
            raise RunFailed(
                f"The record store {mask(self.uri)} cannot be opened: {reason}"
            ) from None

    def experiment_id(self, name: str, about: str = "") -> str:
        """The id of the experiment of that name, which is created on first use.

        Args:
            about: what a new one says on its page, in Markdown.

        Raises:
            RunFailed: it was deleted in MLflow.
        """
        with self._lock():
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                return self._create_experiment(name, about)
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            raise RunFailed(
                f"The MLflow experiment {name!r} was deleted. Restore it with: "
                f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        return str(experiment.experiment_id)

    @property
    def is_remote(self) -> bool:
        """Whether it is a tracking server, which may be away for a while."""
        return self.uri.startswith(("http://", "https://"))

    def search(self, condition: str, experiment_ids: list[str] | None = None) -> Iterator[Run]:
        """All runs for which a condition in MLflow's filter language holds, the latest first."""
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

    def is_left_open(self, run: Run) -> bool:
        """Whether a run's process died before it had ended the run."""
        tags = run.data.tags
        owner = tags.get("harness.owner")
        if tags["harness.outcome"] != "running" or not owner or not is_owner_dead(owner):
            return False
        # Since this was read the process may have ended the run, in order, and then itself.
        return self.client.get_run(run.info.run_id).data.tags["harness.outcome"] == "running"

    def _create_experiment(self, name: str, about: str) -> str:
        tags = {"mlflow.note.content": about} if about else {}
        try:
            experiment_id = str(self.client.create_experiment(name, tags=tags))
        except MlflowException as error:
            # Another machine may have created it on the same server meanwhile.
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                raise RunFailed(f"MLflow cannot create {name!r}: {error.message}") from None
            return str(experiment.experiment_id)
        self._make_movable(experiment_id)
        return experiment_id

    def _make_movable(self, experiment_id: str) -> None:
        """Have an experiment of the embedded store keep its artifacts where the store is."""
        if not self.database:
            return
        location = self.database.parent / "artifacts" / experiment_id
        if location.is_relative_to(ROOT):
            location = location.relative_to(ROOT)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (str(location), experiment_id),
            )

    def _lock(self) -> AbstractContextManager[object]:
        """Keep other processes out while the embedded store is created or extended.

        MLflow's migrations crash when several processes run them on a new file at once.
        """
        if not self.database:
            return nullcontext()
        return FileLock(self.database.with_suffix(".lock"), LOCK_SECONDS)


def _created(file: Path) -> bool:
    """Create the database where there is none; whoever dies meanwhile leaves none."""
    is_new = not file.exists() or not file.stat().st_size
    if is_new:
        unfinished = file.with_suffix(".unfinished")
        for left in file.parent.glob(f"{unfinished.name}*"):  # with its journal
            left.unlink()
        engine = create_engine(f"sqlite:///{unfinished}")
        try:
            mlflow_database._initialize_tables(engine)
        finally:
            engine.dispose()
        unfinished.replace(file)
    # Readers and one writer may work at once; the setting stays in the file.
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    return is_new
