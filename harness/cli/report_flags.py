"""The flags of `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from harness.base import fields
from harness.cli.shared_flags import default


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What to report on, and where to write the page."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Study or experiment."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("report.html")
    """File to write; an existing one is replaced."""
    storage: Annotated[str | None, default("URL", "mlruns/optuna.db")] = None
    """Database URL of the Optuna storage that the study was run with."""

    def __post_init__(self) -> None:
        fields.check_all(self)
