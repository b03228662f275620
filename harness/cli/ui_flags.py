"""The flags of `ui`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.base import fields
from harness.base.fields import Interval
from harness.cli.shared_flags import default


@dataclass(frozen=True, kw_only=True)
class UiSettings:
    """Where to serve, and what to open."""

    port: Annotated[
        int | None, Interval(ge=1024, le=65535), default("INT", "5000, or the next free one")
    ] = None
    """Port to serve on."""
    host: str = "127.0.0.1"
    """Address to serve on; any other one lets other machines in, without a login."""
    experiment: Annotated[str | None, default("NAME", "the one with the latest run")] = None
    """Experiment or study whose runs to open."""
    no_browser: bool = False
    """Print the address only."""

    def __post_init__(self) -> None:
        fields.check_all(self)
