"""The command line of a run or study: built from its parts, written so that it can be shared."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.base import project, sqlite
from harness.base.privacy import mask

STORAGE_VARIABLE = "env:HARNESS_STORAGE"
"""For `--storage`: the environment variable that holds the address."""

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
    return _with_values(
        arguments, {"--data-root": os.path.abspath, "--storage": sqlite.absolute_address}
    )


def _with_values(
    arguments: Sequence[str], changes: Mapping[str, Callable[[str], str]]
) -> tuple[str, ...]:
    """The words with the values of some flags changed."""
    words = []
    for before, word in itertools.pairwise(["", *arguments]):
        flag, equals, value = word.partition("=")
        if change := changes.get(before.replace("_", "-")):
            word = change(word)
        elif equals and (change := changes.get(flag.replace("_", "-"))):
            word = f"{flag}={change(value)}"
        words.append(word)
    return tuple(words)


def _without_password(address: str) -> str:
    """An address that works when it is pasted: a password is read from the environment."""
    return address if mask(address) == address else STORAGE_VARIABLE


def command_text(arguments: Sequence[str], folder: Path | None = None) -> str:
    """Return a command line that can be shared: relative paths, no credentials.

    A `--storage` with a password becomes `env:HARNESS_STORAGE`.

    Args:
        folder: where it is to be repeated; by default in the project's root.

    >>> command_text(("/somewhere/harness/run.py", "baseline", "--lr", "0.05"))
    'python -m harness.run baseline --lr 0.05'
    """
    if not arguments:
        return ""
    program, *rest = _with_values(arguments, {"--storage": _without_password})
    folder = folder or project.root()
    path = Path(program)
    if path.parent.name == "harness":
        module = "harness" if path.stem == "__main__" else f"harness.{path.stem}"
        start = ["python", "-m", module]
    else:
        script = quoted(_shared_path(program, folder))
        start = ["python", script] if path.suffix == ".py" else [script]
    return mask(" ".join([*start, *(quoted(_shared_path(word, folder)) for word in rest)]))


def go_on(arguments: Sequence[str]) -> str:
    """The command line to paste in the current folder, and what it needs beside."""
    text = command_text(arguments, Path.cwd())
    variable = STORAGE_VARIABLE.removeprefix("env:")
    if STORAGE_VARIABLE in text and variable not in os.environ:
        text += f"\n({variable} must hold the URL of the storage.)"
    return text


def _shared_path(word: str, folder: Path) -> str:
    """Return the word with its path relative to the folder, or else to the home folder."""
    flag, equals, path = word.rpartition("=")
    if os.path.isabs(path) and Path(path).is_relative_to(folder):
        return flag + equals + os.path.relpath(path, folder)
    home = os.path.expanduser("~").rstrip(r"\/")  # Path.home() fails on machines without one
    if not os.path.isabs(home):
        return word
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?=[\\/]|$)", "~", word)


def quoted(word: str) -> str:
    """The word as a shell takes it."""
    if sys.platform == "win32":
        return subprocess.list2cmdline([word])
    home = "~/" if word.startswith("~/") else ""  # a shell expands it only outside of quotes
    return home + shlex.quote(word.removeprefix(home))
