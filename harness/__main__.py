"""List the commands, the experiments and the studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.base import discovery
from harness.base.errors import BadRequest, nearest
from harness.cli import entry, listing

COMMANDS = ("run", "study", "compare", "report", "verify", "sync", "ui", "bench")


def main(arguments: Sequence[str]) -> int:
    """Print the lists; any argument is refused with the nearest command."""
    if arguments and arguments[0] not in ("-h", "--help"):
        raise BadRequest(
            f"There is no command {arguments[0]!r}. {nearest(arguments[0], COMMANDS)} "
            "Run one like this: python -m harness.run NAME"
        )
    print("commands, as python -m harness.COMMAND:")
    print(listing.with_summaries(COMMANDS, Path(__file__).parent))
    for folder in ("experiments", "studies"):
        if discovery.names(folder):
            print(f"\n{listing.of_folder(folder)}")
    return 0


if __name__ == "__main__":
    entry.enter(main)
