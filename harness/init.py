"""Make a project of one's own: an experiment, a study, and how to run them.

python -m harness.init
python -m harness.init FOLDER
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import BadRequest
from harness.cli import entry
from harness.cli.new_project import make_project

USAGE = """\
usage: python -m harness.init [FOLDER]

Makes a project in FOLDER, by default in the current folder. It never overwrites a file."""


def main(arguments: Sequence[str]) -> int:
    """Make the project; return the exit status."""
    if set(arguments) & {"-h", "--help"}:
        print(USAGE)
        return 0
    if len(arguments) > 1 or any(not word or word.startswith("-") for word in arguments):
        raise BadRequest(f"init: expected one folder, got {shlex.join(arguments)}.\n\n{USAGE}")
    print(make_project(Path(arguments[0] if arguments else ".")))
    return 0


if __name__ == "__main__":
    entry.enter(main)
