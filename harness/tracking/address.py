"""Where runs are recorded; known without importing MLflow."""

from __future__ import annotations

import hashlib
import os

from harness.privacy import mask
from harness.project import MLRUNS


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file `mlruns/mlflow.db` of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLRUNS / 'mlflow.db'}"


def described() -> str:
    """The store in words for the screen, without credentials."""
    return mask(tracking_uri())


def fingerprint() -> str:
    """What tells this store from others, and holds no credential."""
    return hashlib.sha256(described().encode()).hexdigest()[:16]
