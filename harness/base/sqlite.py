"""SQLite files: their addresses, and a cheap look before a library opens one."""

from __future__ import annotations

import os
import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

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


def may_only_be_read(database: Path) -> bool:
    """Whether a database is there and may not be written.

    Its folder counts as well, because SQLite makes files beside a database that it writes.
    """
    return database.is_file() and not (
        os.access(database, os.W_OK) and os.access(database.parent, os.W_OK | os.X_OK)
    )


def reading_uri(database: Path) -> str:
    """The URI of a database for SQLite, which opens it for reading only."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    return f"{uri}&immutable=1" if _is_at_rest(database) else uri


def reading_address(database: Path) -> str:
    """The address of a database for SQLAlchemy, which opens it for reading only.

    >>> reading_address(Path("/50%/x.db"))
    'sqlite+pysqlite:///file:///50%2525/x.db?mode=ro&uri=true'
    """
    uri, _, options = reading_uri(database).partition("?")
    return f"sqlite+pysqlite:///{quote(uri, safe='/:')}?{options}&uri=true"


def _is_at_rest(database: Path) -> bool:
    """Whether SQLite would have to make a file beside a database to read it, and may not.

    Readers of a database with a write-ahead log share memory in such a file. Without it nobody
    writes, and without a log the database is whole.
    """
    if os.access(database.parent, os.W_OK):
        return False
    try:
        with database.open("rb") as file:
            has_log = file.read(20)[18:] == b"\2\2"  # see "The Database Header" of SQLite
        log, shared = Path(f"{database}-wal"), Path(f"{database}-shm")
        return has_log and not shared.exists() and not (log.exists() and log.stat().st_size)
    except OSError:
        return False


def check_usable(database: Path, library: str, table: str, *, reading: bool = False) -> None:
    """Check that a library can use a file. A missing or empty file passes; nothing is changed.

    Args:
        library: The library that wants to use it, with its version.
        table: A table that every non-empty database of that library has.
        reading: Whether it is to be read only.

    Raises:
        RunFailed: The file is a folder, read-only, locked, no database, or another library's. The
            message names the file and says what to do.
    """
    if fault := _fault(database, library, table, reading):
        raise RunFailed(f"{database}: {fault}")


def is_locked(error: Exception) -> bool:
    """Whether an error, of SQLite or of a library above it, says that a database is locked."""
    return bool(re.search(r"database (table )?is locked", str(error)))


def tell_of_lock(database: Path) -> None:
    """Warn that a command waits."""
    warnings.warn(
        f"{database} is locked by another program; waiting up to {BUSY_SECONDS:g} s.", stacklevel=3
    )


def _fault(database: Path, library: str, table: str, reading: bool) -> str:
    if database.is_dir():
        return "this is a folder, not a database."
    if not reading and not os.access(database.parent, os.W_OK | os.X_OK):
        what = "it may only be read: " if database.is_file() else ""
        return f"{what}its folder is not writable."
    if not database.exists() or not database.stat().st_size:
        return ""
    if not os.access(database, os.R_OK):
        return "it may not be read."
    if not reading and not os.access(database, os.W_OK):
        return "it may only be read: the file is read-only."
    address = reading_uri(database) if reading else f"{database.absolute().as_uri()}?mode=rw"
    begin = "BEGIN" if reading else "BEGIN IMMEDIATE"  # as every write does
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=PATIENT_SECONDS)) as connection:
            try:
                connection.execute(begin)
            except sqlite3.OperationalError as error:
                if not is_locked(error):
                    raise
                tell_of_lock(database)
                connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
                connection.execute(begin)
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
