"""Where runs are recorded; known without importing MLflow."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from harness.privacy import mask
from harness.project import MLRUNS, ROOT


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file `mlruns/mlflow.db` of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLRUNS / 'mlflow.db'}"


def described() -> str:
    """The store in words for the screen, without credentials."""
    return mask(tracking_uri())


def ui_command() -> str:
    """The command that opens MLflow's pages on this store."""
    program = Path(sys.executable).with_name("mlflow")
    if program.is_relative_to(ROOT):
        program = program.relative_to(ROOT)
    store = described().replace(str(MLRUNS), "mlruns").replace("////mlruns", "///mlruns")
    words = [str(program), "ui", "--backend-store-uri", store]
    return f"cd {shlex.quote(str(ROOT))} && {shlex.join(words)}"
