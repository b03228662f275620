"""Code of experiments that are in no file of `experiments/`: where it comes from, and its text.

They are defined in a script, in a notebook's cell, on standard input or after `python -c`. Nothing
else keeps that code, so a run records it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import linecache
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

from harness.base import project
from harness.base.privacy import mask, secret_in

CELL = re.compile(r"<ipython-input-|<python-input-|<stdin>-\d|[/\\]ipykernel_\d+[/\\]")
"""The names that IPython and Python give to what is typed in, piece by piece."""

UNKNOWN = "unknown"

FLAG = "--run-recorded-code"
"""The flag that allows recorded code to be executed."""


def verify_command(run_id: str) -> str:
    """The command that repeats a run by its recorded code."""
    return f"python -m harness.verify {run_id} {FLAG}"


@dataclass(frozen=True)
class OutsideCode:
    """The code of an experiment that is in no file of `experiments/`.

    Attributes:
        origin: the script, relative to the project or by its name alone, or what else it was.
        content: the source; empty if it may not be recorded, or is not known.
        digest: SHA-256 of the source; empty if it is not known.
        own_digest: the same of the part that defines the experiment: its cell, or all of a script.
        class_digest: the first letters of the SHA-256 of the experiment's class.
        missing: why the content is empty.
        is_in_project: whether it is a file of the project, whose commit then covers it.
    """

    origin: str
    content: bytes = b""
    digest: str = ""
    own_digest: str = UNKNOWN
    class_digest: str = ""
    missing: str = ""
    is_in_project: bool = False

    @property
    def is_pieced(self) -> bool:
        """Whether it is pieced together from cells, whose order of execution is not known."""
        return self.own_digest != self.digest

    def sentence(self) -> str:
        """What the user should know of it."""
        place = "experiments/" if self.is_in_project else "the project"
        kept = f"not recorded: {self.missing}" if self.missing else "recorded as source.py"
        return f"code: the experiment is in no file of {place} but in {self.origin}, {kept}"


_executed: dict[str, OutsideCode] = {}


def executed_again(file: str, code: OutsideCode) -> None:
    """Note that recorded code is executed in this process, under the name of a file."""
    _executed[file] = code
    text = importlib.util.decode_source(code.content)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def defining_file() -> str:
    """The name of the file whose class statement is being executed, as code objects have it."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_name in ("__init_subclass__", "__new__"):
        frame = frame.f_back
    return frame.f_code.co_filename


def outside_code(kind: type, file: str) -> OutsideCode:
    """The code of a class that is in no file of `experiments/`.

    Args:
        file: what `defining_file` returned for it.
    """
    if file in _executed:
        return _executed[file]
    path = Path(file)
    is_in_project = path.is_absolute() and path.is_relative_to(project.root())
    if not path.is_file() and file in linecache.cache:
        return _told(_notebook(), kind, *_cells(file))
    if path.is_file():
        name = path.relative_to(project.root()).as_posix() if is_in_project else path.name
        origin = name.encode(errors="replace").decode()
    else:
        origin = {"<stdin>": "standard input", "<string>": "python -c"}.get(file, "typed code")
    content = _found(file, kind.__name__, _functions(kind, file))
    return _told(mask(origin), kind, content, content, is_in_project=is_in_project)


def shared_command() -> tuple[str, ...]:
    """The command line of this process's script, by its name alone if it is outside the project."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not script or not os.path.isfile(script):
        return ()
    path = Path(script).resolve()
    is_own = path.is_relative_to(project.root())
    return (str(path) if is_own else path.name, *sys.argv[1:])


def _told(
    origin: str, kind: type, content: bytes, own: bytes, *, is_in_project: bool = False
) -> OutsideCode:
    if not content:
        return OutsideCode(
            origin, missing="what was executed cannot be read again", is_in_project=is_in_project
        )
    secret = secret_in(content)
    return OutsideCode(
        origin,
        b"" if secret else content,
        _sha256(content),
        _sha256(own),
        _sha256(_text_of_class(own, kind.__name__))[:12],
        f"it looks as if it held {secret}" if secret else "",
        is_in_project,
    )


def _cells(file: str) -> tuple[bytes, bytes]:
    """All cells that were executed, the one that defines the class last, and that one alone."""
    names = [name for name in linecache.cache if CELL.search(name) and name != file]
    *others, own = ("".join(linecache.getlines(name)).rstrip() for name in (*names, file))
    return "\n\n\n".join([*others, own, ""]).encode(), f"{own}\n".encode()


def _notebook() -> str:
    """The notebook's name where one is known: to Jupyter's server, or to VS Code."""
    main = sys.modules.get("__main__")
    known = getattr(main, "__vsc_ipynb_file__", "") or os.environ.get("JPY_SESSION_NAME", "")
    if not known:
        return "a notebook"
    path = Path(known)
    is_own = path.is_absolute() and path.is_relative_to(project.root())
    name = path.relative_to(project.root()).as_posix() if is_own else path.name
    return mask(f"notebook {name}")


@functools.cache
def _found(file: str, name: str, functions: frozenset[CodeType]) -> bytes:
    """The source of a script, of standard input or of `python -c`: the one that was executed.

    It has a class of that name with the same functions; a script that was edited meanwhile is none.
    Empty if there is none.
    """
    for content in _candidates(file):
        try:
            codes = set(_codes(compile(content, file, "exec", dont_inherit=True)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if functions <= codes and any(code.co_name == name for code in codes):
            return content
    return b""


def _candidates(file: str) -> Iterator[bytes]:
    try:
        if file == "<stdin>":
            # A file is there still; what came through a pipe is gone. Windows has no `pread`.
            if sys.platform != "win32" and stat.S_ISREG(os.fstat(0).st_mode):
                yield os.pread(0, os.fstat(0).st_size, 0)
        elif file == "<string>":
            for word in sys.orig_argv[1:]:
                yield word.encode(errors="surrogateescape")
                yield word.partition("c")[2].encode(errors="surrogateescape")  # `-cCODE`
        else:
            yield Path(file).read_bytes()
    except (OSError, ValueError, AttributeError):
        return


def _functions(kind: type, file: str) -> frozenset[CodeType]:
    """The functions that the class statement has written out; a dataclass has others."""
    members = (getattr(member, "__func__", member) for member in vars(kind).values())
    codes = (member.__code__ for member in members if isinstance(member, FunctionType))
    start = f"{kind.__qualname__}."
    return frozenset(
        code for code in codes if code.co_filename == file and code.co_qualname.startswith(start)
    )


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _text_of_class(content: bytes, name: str) -> bytes:
    """The lines of the last class of that name; empty if there is none."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return b""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name]
    if not found:
        return b""
    node = max(found, key=lambda node: node.lineno)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = importlib.util.decode_source(content).splitlines(keepends=True)
    return "".join(lines[start - 1 : node.end_lineno]).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
