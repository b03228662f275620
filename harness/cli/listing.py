"""Names of commands, experiments and studies with a summary each, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.base import discovery, project
from harness.base.errors import BadRequest


def with_summaries(names: Sequence[str], folder: Path) -> str:
    """The Python files of a folder, one a line, each with the first line of its docstring."""
    width = max((len(name) for name in names), default=0)
    return "\n".join(
        f"  {name:<{width}}  {discovery.first_line(folder / f'{name}.py')}" for name in names
    )


def of_folder(folder: str) -> str:
    """The project's `experiments` or `studies`, below a heading."""
    return f"{folder}:\n{with_summaries(discovery.names(folder), project.root() / folder)}"


def summary_of(folder: str, name: str) -> str:
    """The first line of the docstring of an experiment's or study's file."""
    return discovery.first_line(project.root() / folder / f"{name}.py")


def take_name(folder: str, arguments: Sequence[str], usage: str) -> tuple[str, list[str]]:
    """Return the experiment or study that the first argument names, and the other arguments.

    Args:
        folder: `experiments` or `studies`.
        usage: what `--help` prints above the list of names.

    Raises:
        BadRequest: the name is missing or unknown, or its file is not valid Python.
        SystemExit: the help was printed.
    """
    name, *rest = arguments or [""]
    if name in ("-h", "--help"):
        print(f"{usage}\n\n{of_folder(folder)}")
        raise SystemExit(0)
    if not arguments or name.startswith("-"):
        raise BadRequest(f"Missing: NAME.\n\n{usage}\n\n{of_folder(folder)}")
    discovery.find(folder, name)
    return name, rest
