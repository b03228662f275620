"""The project on disk: its root, and the experiments and studies that its folders hold."""

from __future__ import annotations

import ast
import importlib.util
import resource
import sys
from pathlib import Path
from types import ModuleType

from harness.base.errors import BadRequest, nearest

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the harness package: stores and data paths start here."""

MLRUNS = ROOT / "mlruns"
"""Everything that runs leave behind: databases, artifacts, checkpoints."""


def names(folder: str) -> list[str]:
    """Names of the experiments (or studies) in a folder of the root: its Python files, sorted."""
    return sorted(
        path.stem
        for path in (ROOT / folder).glob("*.py")
        if path.stem.isidentifier() and not path.stem.startswith("_") and path.is_file()
    )


def summary(path: Path) -> str:
    """First line of a file's docstring, read without running the file.

    A file that cannot be parsed says so in its place: a list must not fail because of one entry.
    """
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return f"(cannot be read: {error.__class__.__name__})"
    return docstring.partition("\n")[0]


def find(folder: str, name: str) -> Path:
    """The file of an experiment (or study), which Python can at least parse.

    That is told before a library is imported for it.

    Raises:
        BadRequest: the folder has no such file, or it is no Python.
    """
    kind = folder.removesuffix("s").replace("studie", "study")
    known = names(folder)
    if name not in known:
        raise BadRequest(f"There is no {kind} {name!r} in {folder}/. {nearest(name, known)}")
    path = ROOT / folder / f"{name}.py"
    try:
        compile(importlib.util.decode_source(path.read_bytes()), str(path), "exec")
    except SyntaxError as error:
        reason = f"{error.msg} (line {error.lineno})" if error.lineno else error.msg
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        reason = f"{error.__class__.__name__}: {error}"
    else:
        return path
    raise BadRequest(f"{folder}/{name}.py cannot be imported: {reason}")


def load(folder: str, name: str) -> ModuleType:
    """Import the module `name` of a folder of the root.

    Raises:
        BadRequest: the folder has no such file, or the file cannot be imported.
    """
    find(folder, name)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"{folder}.{name}")
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, BadRequest) else f"{error.__class__.__name__}: "
        what, _, _ = str(error).partition("\n")
        reason = f"{kind}{what}".rstrip(": ")
    raise BadRequest(f"{folder}/{name}.py cannot be imported: {reason}")


def peak_memory_bytes() -> int:
    """The most memory that this process has taken so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
