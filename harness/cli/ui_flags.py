"""The flags of `ui`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.base import fields
from harness.base.fields import Interval
from harness.cli.shared_flags import default
from harness.tracking import pages


@dataclass(frozen=True, kw_only=True)
class UiSettings:
    """Where to serve, and what to open."""

    port: Annotated[
        int | None, Interval(ge=1024, le=65535), default("INT", "5000, or the next free one")
    ] = None
    """Port to serve on."""
    host: str = pages.LOOPBACK
    """Address to serve on; any other one lets other machines in, and nothing is encrypted."""
    allowed_hosts: Annotated[tuple[str, ...], default("NAME ...", "this machine's own names")] = ()
    """Further names by which the pages are reached, such as that of a proxy."""
    no_token: bool = False
    """Let in whoever reaches the port; by default the printed link holds a token."""
    allow_uploads: bool = False
    """Take files from clients, for runs that are recorded through this address."""
    experiment: Annotated[str | None, default("NAME", "the one with the latest run")] = None
    """Experiment or study whose runs to open."""
    no_browser: bool = False
    """Print the address only."""

    def __post_init__(self) -> None:
        fields.check_all(self)

    def warnings(self) -> list[str]:
        """What these settings open to others, in sentences."""
        may = "read, change and delete all runs"
        may += ", and store files with them" if self.allow_uploads else ""
        is_local = pages.is_loopback(self.host)
        found = []
        if not is_local:
            found.append(
                f"{self.host} can be reached from other machines, and nothing is encrypted on the "
                f"way: whoever sees the link can {may}."
            )
        if self.no_token:
            who = "who uses this machine" if is_local else "who reaches this machine"
            found.append(f"without a token, everybody {who} can {may}.")
        return found
