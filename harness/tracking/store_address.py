"""Where runs are recorded; known without importing MLflow."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from harness.base import sqlite
from harness.base.errors import BadRequest
from harness.base.privacy import mask
from harness.base.project import MLRUNS, ROOT

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks", "uc")
"""What the installed MLflow records to by itself; plug-ins add others."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file `mlruns/mlflow.db` of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLRUNS / 'mlflow.db'}"


def described() -> str:
    """The store in words for the screen, without credentials."""
    return mask(tracking_uri())


def fingerprint() -> str:
    """What tells this store from others, and holds no credential."""
    return hashlib.sha256(described().encode()).hexdigest()[:16]


def database_file() -> Path | None:
    """The file of an embedded store; None where the store is on a server."""
    scheme, separator, path = tracking_uri().partition(":///")
    return ROOT / path.partition("?")[0] if separator and scheme.startswith("sqlite") else None


def check() -> None:
    """Refuse at once what can be no store.

    Raises:
        BadRequest: MLFLOW_TRACKING_URI is no address, or one that MLflow has no store for.
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
        return "is no address of a record store"
    if scheme == "sqlite":
        file = database_file()
        return "names no file" if file in (None, ROOT, ROOT / ":memory:") else ""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        return f"is no address ({error})"
    return "names no host" if scheme.startswith("http") and not parts.hostname else ""


def check_run(what: str, run_id: str, *others: str) -> None:
    """Tell what cannot be the id of a run before anything is imported for it.

    Args:
        what: the request, for the message.
        others: what may stand in place of an id; of these, only `last` is looked for in the store.

    Raises:
        BadRequest: it is no id, or nothing was recorded yet.
    """
    if not re.fullmatch("[0-9a-f]{32}", run_id) and run_id not in others:
        last = " or last" if "last" in others else ""
        raise BadRequest(
            f"{what}: {run_id!r} is not the id of a run (32 of the characters 0-9 and a-f){last}."
        )
    if not run_id.startswith("-") and is_empty():
        raise BadRequest(f"{what}: nothing was recorded in {described()} yet.")


def is_empty() -> bool:
    """Whether nothing can have been recorded yet: the embedded store's file is not there."""
    file = database_file()
    return file is not None and not file.exists()


def check_database(file: Path) -> None:
    """Make sure that the installed MLflow can work with the embedded store, without importing it.

    Raises:
        RunFailed: it cannot; see `harness.base.sqlite.check`.
    """
    library = f"MLflow {importlib.metadata.version('mlflow')}"
    sqlite.check(file, library, "experiments")
