"""Where the project lies on disk."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the harness package. Stores and data folders are relative to it."""

MLRUNS = ROOT / "mlruns"
"""Everything that runs leave behind: databases, artifacts, checkpoints."""
