"""Where runs are recorded; known without importing MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from harness.privacy import mask
from harness.project import MLRUNS, ROOT


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file `mlruns/mlflow.db` of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLRUNS / 'mlflow.db'}"


def described() -> str:
    """The store in words for the screen, without credentials."""
    return mask(tracking_uri())


def database_path(uri: str) -> Path | None:
    """The file of an embedded store; None for any other store."""
    scheme, separator, path = uri.partition(":///")
    return ROOT / path if separator and scheme.startswith("sqlite") else None
