"""Where runs are recorded: the store's address, checked without importing MLflow."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path
from urllib.parse import urlsplit

from harness.base import project, sqlite
from harness.base.errors import BadRequest
from harness.base.privacy import mask

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks", "uc")
"""The addresses that MLflow itself can record to; plug-ins add others."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file `mlruns/mlflow.db` of the project.

    A relative path of a SQLite file starts in the current folder.
    """
    if named := os.environ.get("MLFLOW_TRACKING_URI"):
        return sqlite.absolute_address(named)
    return sqlite.file_address(project.mlruns() / "mlflow.db")


def described() -> str:
    """The store's address for the screen, without credentials."""
    return mask(tracking_uri())


def fingerprint() -> str:
    """Identifies this store among others; contains no credential."""
    return hashlib.sha256(described().encode()).hexdigest()[:16]


def database_file() -> Path | None:
    """The file of an embedded store, or None for a server."""
    return sqlite.file_of(tracking_uri())


def is_read_only() -> bool:
    """Whether this is an embedded store that may not be written, such as another person's."""
    file = database_file()
    return file is not None and sqlite.may_only_be_read(file)


def uri_to_read() -> str:
    """The store's address for those who only read: it works where nothing may be written."""
    file = database_file()
    return sqlite.reading_address(file) if file and is_read_only() else tracking_uri()


def spool_folder() -> Path:
    """Where writes wait while this store, a server, is away; see `offline_queue`."""
    return project.mlruns() / "spool" / fingerprint()


def stored_id(run_id: str) -> str:
    """The store's id of a run, whose own id may be the key it got while the server was away."""
    known = spool_folder() / "ids" / run_id
    return known.read_text() if known.is_file() else run_id


def check_address() -> None:
    """Refuse an address at once if nothing can be recorded there.

    Raises:
        BadRequest: MLFLOW_TRACKING_URI is not a URL, or MLflow has no store for it.
    """
    uri = tracking_uri()
    if fault := _fault(uri):
        raise BadRequest(
            f"MLFLOW_TRACKING_URI: {mask(uri)!r} {fault}. Record to a file "
            "(sqlite:///mlruns/mlflow.db) or a server (http://127.0.0.1:5000)."
        )


def _fault(uri: str) -> str:
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme not in SCHEMES and scheme not in {
        plug_in.name for plug_in in importlib.metadata.entry_points(group="mlflow.tracking_store")
    }:
        return "is not the URL of a record store"
    if scheme == "sqlite":
        file = database_file()
        return "names no file" if file in (None, Path(), Path(":memory:")) else ""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        return f"is not a URL ({error})"
    return "names no host" if scheme.startswith("http") and not parts.hostname else ""


def check_recorded(what: str) -> None:
    """Refuse a request for records before anything was recorded.

    Args:
        what: the request, for the message.

    Raises:
        BadRequest: the embedded store's file does not exist.
    """
    if is_empty():
        raise BadRequest(f"{what}: nothing was recorded in {described()} yet.")


def is_empty() -> bool:
    """Whether nothing can have been recorded yet: the embedded store's file is missing."""
    file = database_file()
    return file is not None and not file.exists()


def check_may_be_written() -> None:
    """Refuse to write to a store that may only be read.

    Raises:
        RunFailed: The embedded store's file or its folder may not be written.
    """
    file = database_file()
    if file and is_read_only():
        check_database(file)


def check_database(file: Path, *, reading: bool = False) -> None:
    """Make sure that the embedded store can be opened, or created; nothing is written.

    Args:
        reading: Whether it is to be read only.

    Raises:
        RunFailed: The file is a folder, read-only, locked, damaged, or another program's database.
    """
    library = f"MLflow {importlib.metadata.version('mlflow')}"
    sqlite.check_usable(file, library, "experiments", reading=reading)
