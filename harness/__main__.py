"""Run a command, or list the commands, the experiments and the studies.

python -m harness
python -m harness run baseline
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from harness.base import discovery, project
from harness.base.errors import BadRequest, nearest
from harness.cli import entry, listing

COMMANDS = ("init", "run", "study", "compare", "report", "verify", "sync", "ui", "bench")


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names, or print the lists."""
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        module = importlib.import_module(f"harness.{name}")
        # What is recorded and printed as the command line starts like this.
        sys.argv = [str(module.__file__), *rest]
        return int(module.main(rest))
    if name not in ("-h", "--help"):
        raise BadRequest(
            f"There is no command {name!r}. {nearest(name, COMMANDS)} "
            "Run one like this: python -m harness.run NAME"
        )
    print("commands, as python -m harness.COMMAND:")
    print(listing.with_summaries(COMMANDS, Path(__file__).parent))
    for folder in project.FOLDERS:
        if discovery.names(folder):
            print(f"\n{listing.of_folder(folder)}")
    return 0


def start() -> NoReturn:
    """Start as the console command `harness`."""
    entry.enter(main)


if __name__ == "__main__":
    entry.enter(main)
