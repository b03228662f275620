"""The command line of a run or study: built from its parts, written so that it can be shared."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.base import project
from harness.base.privacy import mask

NO_DEFAULTS: Mapping[str, Any] = {}


def run_arguments(
    name: str,
    options: Mapping[str, Any],
    defaults: Mapping[str, Any] = NO_DEFAULTS,
    *,
    command: Literal["run", "study"] = "run",
) -> tuple[str, ...]:
    """Return the words of the command that runs an experiment or study with these options.

    A tuple gives its flag once, then its entries; `--tag` stands before each one.

    Args:
        defaults: The defaults of those options that are switches and on by default.

    >>> run_arguments("baseline", {"lr": 0.5, "capture_graph": True, "quiet": False})
    ('python', '-m', 'harness.run', 'baseline', '--lr', '0.5', '--capture-graph')
    """
    words = ["python", "-m", f"harness.{command}", name]
    for option, value in options.items():
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            if value != defaults.get(option, False):
                words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            entries = [str(entry) for entry in (value if isinstance(value, tuple) else (value,))]
            if option == "tag":
                words += [word for entry in entries for word in ("--tag", entry)]
            else:
                words += [f"--{flag}", *entries]
    return tuple(words)


def repeatable(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line with the meaning that it has in the current folder, for any other one.

    >>> repeatable(("run.py", "baseline", "--data-root", "/data"))
    ('run.py', 'baseline', '--data-root', '/data')
    """
    if os.path.samefile(".", project.root()):  # where relative paths are the best to share
        return tuple(arguments)
    words = []
    for before, word in itertools.pairwise(["", *arguments]):
        flag, _, path = word.partition("=")
        if before.replace("_", "-") == "--data-root":
            word = os.path.abspath(word)
        elif flag.replace("_", "-") == "--data-root" and path:
            word = f"{flag}={os.path.abspath(path)}"
        words.append(word)
    return tuple(words)


def command_text(arguments: Sequence[str], folder: Path | None = None) -> str:
    """Return a command line that can be shared: relative paths, no credentials.

    Args:
        folder: where it is to be repeated; by default in the project's root.

    >>> command_text(("/somewhere/harness/run.py", "baseline", "--lr", "0.05"))
    'python -m harness.run baseline --lr 0.05'
    """
    if not arguments:
        return ""
    program, *rest = arguments
    folder = folder or project.root()
    path = Path(program)
    if path.parent.name == "harness":
        module = "harness" if path.stem == "__main__" else f"harness.{path.stem}"
        start = ["python", "-m", module]
    else:
        script = _quoted(_shared_path(program, folder))
        start = ["python", script] if path.suffix == ".py" else [script]
    return mask(" ".join([*start, *(_quoted(_shared_path(word, folder)) for word in rest)]))


def _shared_path(word: str, folder: Path) -> str:
    """Return the word with its path relative to the folder, or else to the home folder."""
    flag, equals, path = word.rpartition("=")
    if os.path.isabs(path) and Path(path).is_relative_to(folder):
        return flag + equals + os.path.relpath(path, folder)
    home = os.path.expanduser("~").rstrip(r"\/")  # Path.home() fails on machines without one
    if not os.path.isabs(home):
        return word
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?=[\\/]|$)", "~", word)


def _quoted(word: str) -> str:
    if sys.platform == "win32":
        return subprocess.list2cmdline([word])
    home = "~/" if word.startswith("~/") else ""  # a shell expands it only outside of quotes
    return home + shlex.quote(word.removeprefix(home))
