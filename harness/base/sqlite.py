"""A SQLite file before a library opens it: is it whole, writable, free, and of a known version?

Libraries begin to write first and find out later; here nothing is changed by asking.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from harness.base.errors import RunFailed

LOCK_SECONDS = 10.0
"""How long another process may hold a database before that is an error."""


def check(database: Path, library: str, table: str, knows: Callable[[str], bool]) -> None:
    """Make sure that a library can work with a file; one that is missing or empty is fine.

    Args:
        library: whose database it is, with its version.
        table: the table by which that library's databases are told from others.
        knows: whether the library knows a version of its tables, by Alembic's name for it.

    Raises:
        RunFailed: the file is a folder, may not be written, is locked, damaged, or of another
            library or a newer version; the message names the file and what to do.
    """
    if fault := _fault(database, library, table, knows):
        raise RunFailed(f"{database}: {fault}")


def _fault(database: Path, library: str, table: str, knows: Callable[[str], bool]) -> str:
    if database.is_dir():
        return "this is a folder, not a database."
    if not os.access(database.parent, os.W_OK | os.X_OK):
        return "its folder may not be written."
    if not database.exists() or not database.stat().st_size:
        return ""
    if not os.access(database, os.R_OK | os.W_OK):
        return "the file is read-only."
    try:
        with closing(sqlite3.connect(database, LOCK_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # as every write does
            connection.execute("ROLLBACK")
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = {name for (name,) in connection.execute(query)}
            if table not in tables and tables:
                return f"not a database of {library}'s (it holds {', '.join(sorted(tables)[:3])})."
            if "alembic_version" in tables:
                for (version,) in connection.execute("SELECT version_num FROM alembic_version"):
                    if not knows(str(version)):
                        return (
                            f"written by a newer version than {library} (its tables are of "
                            f"version {version}). Update it, or choose another database."
                        )
            (whole,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return "" if whole == "ok" else _damaged(whole)
    except sqlite3.DatabaseError as error:
        match error.sqlite_errorcode & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return "locked by another process for too long. End that one, and try again."
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return _damaged(str(error))
        return f"the database cannot be used ({error})."


def _damaged(how: str) -> str:
    return (
        f"the database is damaged ({' '.join(how.split())}). "
        "Put a copy in its place, or move it away to begin a new one."
    )
