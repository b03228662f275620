"""Optuna's storage, which keeps the studies, and the lock around it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import optuna.storages._rdb.alembic
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from harness.base import project, sqlite
from harness.base.errors import BadRequest, RunFailed
from harness.base.privacy import mask

_DELETED = (
    "The study was deleted from {where}, or that was replaced, while it ran. Its runs are "
    "recorded; the same command begins it anew."
)

StoredStudy = optuna.Study
"""A study as its storage holds it."""


def storage_url(url: str | None) -> str:
    """The URL of an Optuna storage, by default the SQLite file `mlruns/optuna.db`.

    A relative path starts in the current folder. `env:NAME` stands for what the environment
    variable NAME holds, so that a password is on no command line.

    Raises:
        BadRequest: the text is not a database URL, or several processes cannot share the database.
    """
    if url and url.startswith("env:"):
        name = url.removeprefix("env:")
        if not (url := os.environ.get(name)):
            raise BadRequest(f"storage: set {name} to the URL of the storage; it is not set.")
    try:
        named = sqlite.absolute_address(url) if url else None
        parsed = make_url(named or sqlite.file_address(project.mlruns() / "optuna.db"))
        parsed.get_dialect()
        file = Path(str(parsed.database)).resolve()
    except (SQLAlchemyError, ValueError, ImportError):  # a bad port, an unknown driver
        raise BadRequest(
            f"storage: expected a database URL like sqlite:///mlruns/optuna.db, "
            f"got {mask(str(url))!r}."
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise BadRequest("storage: workers cannot share a database in memory; name a file.")
        parsed = parsed.set(database=str(file))
    return parsed.render_as_string(hide_password=False)


def lock(url: str, purpose: str = "claims") -> FileLock:
    """The lock under which the processes of this machine take turns on a storage."""
    file = _sqlite_path(url)
    folder = file.parent if file else project.mlruns()
    name = hashlib.sha256(f"{url} {purpose}".encode()).hexdigest()[:16]
    return FileLock(folder / f".optuna-{name}.lock")


def open_storage(url: str, *, reading: bool = False) -> RDBStorage:
    """Open a storage; the first use creates its tables.

    Args:
        reading: whether it may be one that may only be read.

    Raises:
        RunFailed: the storage cannot be opened.
    """
    file = _sqlite_path(url)
    library = f"Optuna {optuna.__version__}"
    try:
        if file and reading and sqlite.may_only_be_read(file):
            sqlite.check_usable(file, library, "studies", reading=True)
            return RDBStorage(sqlite.reading_address(file))
        (file.parent if file else project.mlruns()).mkdir(parents=True, exist_ok=True)
        if file:
            sqlite.check_usable(file, library, "studies")
        # A lock that cannot be created would be waited for as if another process held it.
        Path(lock(url).lock_file).touch()
        with lock(url):
            options: dict[str, Any] = {"connect_args": {"timeout": 60}} if file else {}
            storage = RDBStorage(url, engine_kwargs=options)
            if file:
                with closing(sqlite3.connect(file)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
        return storage
    except RunFailed:
        raise
    except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
        reason = mask(str(error)).partition("\n")[0]
        raise RunFailed(f"The storage {mask(url)} cannot be opened: {reason}") from None


def has_no_file(url: str) -> bool:
    """Whether nothing can be stored yet: the database's file is not there."""
    file = _sqlite_path(url)
    return file is not None and not file.exists()


def check_is_there(url: str, study_name: str) -> None:
    """Make sure that a study in use can be found again by others.

    A deleted file is still there for those who have opened it.

    Raises:
        RunFailed: the study, or the database's file, was deleted or replaced.
    """
    file = _sqlite_path(url)
    if file is None:
        return
    query = "SELECT 1 FROM studies WHERE study_name = ?"
    try:
        with closing(sqlite3.connect(sqlite.reading_uri(file), uri=True)) as connection:
            found = connection.execute(query, (study_name,)).fetchone()
    except sqlite3.OperationalError as error:
        found = sqlite.is_locked(error)
    if not found:
        raise RunFailed(_DELETED.format(where=mask(url)))


@contextlib.contextmanager
def failures_told(url: str) -> Iterator[None]:
    """Turn a failure of the storage within the block, such as a full disk, into one line.

    Raises:
        RunFailed: the storage failed.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
        reason = mask(str(error.__cause__ or error)).partition("\n")[0]
        raise RunFailed(
            f"The storage {mask(url)} failed: {reason}\n"
            "Once that is fixed, the same command goes on."
        ) from None
    except KeyError as error:
        if NOT_FOUND_MSG not in error.args:
            raise
        raise RunFailed(_DELETED.format(where=mask(url))) from None
    except json.JSONDecodeError as error:
        raise RunFailed(
            f"The storage {mask(url)} holds an attribute that is no JSON ({error}). Restore a copy "
            "of it, or choose another --study-name."
        ) from None


def stored_names(url: str) -> list[str]:
    """Names of the studies in a storage; empty if its file does not exist."""
    if has_no_file(storage_url(url)):
        return []
    return optuna.get_all_study_names(open_storage(storage_url(url), reading=True))


def load_stored(url: str, study_name: str, *, reading: bool = True) -> StoredStudy:
    """A study of a storage, for reading unless `reading` says otherwise."""
    storage = open_storage(storage_url(url), reading=reading)
    return optuna.load_study(study_name=study_name, storage=storage)


def _sqlite_path(url: str) -> Path | None:
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
