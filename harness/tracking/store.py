"""The MLflow store: where it is, how it comes into being, its experiments.

The embedded store is a SQLite file under `mlruns/`. Artifact locations are kept relative to the
project's root, so that a moved checkout loses nothing; whoever opens the store stands in the root.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from harness.errors import RunFailed
from harness.privacy import mask
from harness.project import ROOT
from harness.tracking.address import database_path, tracking_uri


class Store:
    """An open MLflow store, embedded or on a server."""

    def __init__(self) -> None:
        """Open the store that `tracking_uri` names, creating the embedded one on first use.

        Raises:
            RunFailed: it cannot be opened.
        """
        self.uri = tracking_uri()
        self.database = database_path(self.uri)
        if self.database:
            try:
                self.database.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunFailed(f"{self.database.parent}: {error.strerror}") from None
        try:
            with self._lock():
                self.client = MlflowClient(self.uri)
                if self.database:
                    _write_ahead(self.database)
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
            reason = str(error).partition("\n")[0]
            raise RunFailed(
                f"The record store {mask(self.uri)} cannot be opened: {mask(reason)}"
            ) from None

    def experiment_id(self, name: str, about: str) -> str:
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
        if self.database:
            location = self.database.parent / "artifacts" / experiment_id
            if location.is_relative_to(ROOT):
                location = location.relative_to(ROOT)
            with closing(sqlite3.connect(self.database)) as connection, connection:
                connection.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                    (str(location), experiment_id),
                )
        return experiment_id

    def _lock(self) -> AbstractContextManager[object]:
        """Keep other processes out while the embedded store is created or extended.

        MLflow's migrations crash when several processes run them on a new file at once.
        """
        if not self.database:
            return nullcontext()
        return FileLock(self.database.with_suffix(".lock"))


def _write_ahead(database: Path) -> None:
    """Let readers and one writer work at once; the setting stays in the file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
