"""SQLite files: their addresses, and a cheap look before a library opens one."""

from __future__ import annotations

import os
import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from harness.base.errors import RunFailed

BUSY_SECONDS = 120.0
"""How long to wait for another program that has locked a database."""

PATIENT_SECONDS = 3.0
"""How long to wait without a word."""

STILL_LOCKED = (
    "locked by another program for more than {seconds:g} s. End that program, or try again later."
)


def file_address(file: Path) -> str:
    """The address of a database's file, as SQLAlchemy reads it.

    >>> file_address(Path("/runs/x.db")), file_address(Path("/50%/what?/x.db"))
    ('sqlite:////runs/x.db', 'sqlite+pysqlite:////50%25/what%3F/x.db')
    """
    escaped = str(file).replace("%", "%25").replace("?", "%3F")
    # MLflow makes the folder of a plain sqlite:/// address, as it is written here.
    return f"sqlite:///{file}" if escaped == str(file) else f"sqlite+pysqlite:///{escaped}"


def absolute_address(address: str) -> str:
    """The same address for every folder: a relative path starts in the current one, ~ at home.

    >>> absolute_address("sqlite:////tmp/x.db"), absolute_address("postgresql://db/x")
    ('sqlite:////tmp/x.db', 'postgresql://db/x')
    """
    scheme, separator, rest = address.partition(":///")
    path, mark, options = rest.partition("?")
    if not (separator and scheme.startswith("sqlite") and path) or path.startswith((":", "file:")):
        return address
    whole = os.path.abspath(os.path.expanduser(path))
    return f"{scheme}:///{whole}{mark}{options}"


def file_of(address: str) -> Path | None:
    """The file that an address names; None if it is no file of SQLite's."""
    scheme, separator, rest = address.partition(":///")
    if not (separator and scheme.startswith("sqlite")):
        return None
    return Path(unquote(rest.partition("?")[0]))


def check_usable(database: Path, library: str, table: str) -> None:
    """Check that a library can use a file. A missing or empty file passes; nothing is changed.

    Args:
        library: The library that wants to use it, with its version.
        table: A table that every non-empty database of that library has.

    Raises:
        RunFailed: The file is a folder, read-only, locked, no database, or another library's. The
            message names the file and says what to do.
    """
    if fault := _fault(database, library, table):
        raise RunFailed(f"{database}: {fault}")


def is_locked(error: Exception) -> bool:
    """Whether an error, of SQLite or of a library above it, says that a database is locked."""
    return bool(re.search(r"database (table )?is locked", str(error)))


def tell_of_lock(database: Path) -> None:
    """Warn that a command waits."""
    warnings.warn(
        f"{database} is locked by another program; waiting up to {BUSY_SECONDS:g} s.", stacklevel=3
    )


def _fault(database: Path, library: str, table: str) -> str:
    if database.is_dir():
        return "this is a folder, not a database."
    if not os.access(database.parent, os.W_OK | os.X_OK):
        return "its folder is not writable."
    if not database.exists() or not database.stat().st_size:
        return ""
    if not os.access(database, os.R_OK | os.W_OK):
        return "the file is read-only."
    try:
        with closing(sqlite3.connect(database, timeout=PATIENT_SECONDS)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")  # as every write does
            except sqlite3.OperationalError as error:
                if not is_locked(error):
                    raise
                tell_of_lock(database)
                connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
                connection.execute("BEGIN IMMEDIATE")
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = {name for (name,) in connection.execute(query)}
            connection.rollback()
    except sqlite3.DatabaseError as error:
        if is_locked(error):
            return STILL_LOCKED.format(seconds=BUSY_SECONDS)
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return f"the database is damaged ({error}). Restore a copy, or move it away."
        return f"the database cannot be used ({error})."
    if tables and table not in tables:
        found = ", ".join(sorted(tables)[:3])
        return f"not a database of {library} (its tables: {found}). Choose another file."
    return ""
