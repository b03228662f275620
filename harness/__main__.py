"""List the commands, the experiments and the studies."""

from __future__ import annotations

from collections.abc import Sequence

from harness.base import discovery
from harness.base.errors import BadRequest, nearest
from harness.cli import flags
from harness.run import listing

DOORS = ("run", "study", "compare", "report", "verify", "sync", "ui", "bench")


def main(arguments: Sequence[str]) -> int:
    """Print the lists; an argument is answered with the nearest command."""
    if arguments and arguments[0] not in ("-h", "--help"):
        raise BadRequest(
            f"There is no command {arguments[0]!r} here. {nearest(arguments[0], DOORS)} "
            "Use: python -m harness.run NAME"
        )
    print("commands, as python -m harness.COMMAND:")
    print(listing(DOORS, "harness"))
    for folder in ("experiments", "studies"):
        if names := discovery.names(folder):
            print(f"\n{folder}:\n{listing(names, folder)}")
    return 0


if __name__ == "__main__":
    flags.enter(main)
