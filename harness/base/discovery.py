"""The experiments and studies in the project's folders: listed, found, imported."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from harness.base import project
from harness.base.errors import BadRequest, nearest


def names(folder: str) -> list[str]:
    """Return the sorted names of the experiments (or studies) in a folder: its Python files."""
    return sorted(
        path.stem
        for path in (project.root() / folder).glob("*.py")
        if path.stem.isidentifier() and not path.stem.startswith("_") and path.is_file()
    )


def first_line(path: Path) -> str:
    """Return the first line of a file's docstring, without running the file.

    A file that cannot be parsed gets a note instead, so that one bad file does not break a list.
    """
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return f"(cannot be read: {error.__class__.__name__})"
    return docstring.partition("\n")[0]


def find(folder: str, name: str) -> Path:
    """Return the file of an experiment (or study), after checking its syntax.

    The check needs no library, so a typo is reported at once.

    Raises:
        BadRequest: The folder has no such file, or the file is not valid Python.
    """
    kind = folder.removesuffix("s").replace("studie", "study")
    known = names(folder)
    if name not in known:
        raise BadRequest(f"There is no {kind} {name!r} in {folder}/. {nearest(name, known)}")
    path = project.root() / folder / f"{name}.py"
    try:
        compile(importlib.util.decode_source(path.read_bytes()), str(path), "exec")
    except SyntaxError as error:
        reason = f"{error.msg} (line {error.lineno})" if error.lineno else error.msg
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        reason = f"{error.__class__.__name__}: {error}"
    else:
        return path
    raise BadRequest(f"{folder}/{name}.py cannot be imported: {reason}")


@functools.cache
def sources_of(file: Path) -> dict[str, str]:
    """A file of the project and the project's modules that it imports, directly or not.

    The harness's own are left out: its version is that of the commit.

    Returns:
        The first letters of each file's SHA-256, by its path in the project. They stay the same in
        this process, which has imported what they were.
    """
    found: dict[str, str] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(project.root()).as_posix()
        if name in found or name.startswith("harness/"):
            continue
        try:
            content = path.read_bytes()
            tree = ast.parse(content)
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            continue
        found[name] = hashlib.sha256(content).hexdigest()[:12]
        waiting += _imported(tree, path)
    return dict(sorted(found.items()))


def _imported(tree: ast.AST, path: Path) -> list[Path]:
    """The project's files that the import statements of a module lead to."""
    root = project.root()
    modules: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else root
            base = base.joinpath(*(node.module or "").split("."))
            modules += [base, *(base / alias.name for alias in node.names)]
    files = [
        candidate
        for module in modules
        if module.is_relative_to(root) and module != root
        for candidate in (
            module.with_name(f"{module.name}.py"),
            # Importing a module runs its packages first.
            *(
                folder / "__init__.py"
                for folder in (module, *module.parents)
                if folder.is_relative_to(root) and folder != root
            ),
        )
    ]
    return [file for file in files if file.is_file()]


def put_project_first() -> None:
    """Have Python import from the project, whatever else it finds under the same names."""
    root = str(project.root())
    if sys.path[:1] != [root]:
        sys.path.insert(0, root)
    for folder in project.FOLDERS:
        spec = PathFinder.find_spec(folder, [root])
        # A folder without `__init__.py` would yield to any later one that has it.
        if spec and not spec.loader and folder not in sys.modules:
            sys.modules[folder] = importlib.util.module_from_spec(spec)


def load_module(folder: str, name: str) -> ModuleType:
    """Import the module of an experiment (or study).

    Raises:
        BadRequest: The folder has no such file, or importing it fails.
    """
    find(folder, name)
    put_project_first()
    try:
        return importlib.import_module(f"{folder}.{name}")
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, BadRequest) else f"{error.__class__.__name__}: "
        what, _, _ = str(error).partition("\n")
        reason = f"{kind}{what}".rstrip(": ")
    raise BadRequest(f"{folder}/{name}.py cannot be imported: {reason}")
