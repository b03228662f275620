"""Standard input, output and error of a command: closed, or written where nothing can be written.

What is printed matters less than what is done: a command whose output is lost does its work.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO)
"""Whoever read has seen enough, as `head` has, or the terminal is gone."""

_failure: OSError | None = None


def prepare() -> None:
    """Make `print` work whatever the standard streams are; to be called before files are opened.

    A closed stream becomes an empty one: otherwise the next file that is opened, such as a
    database, would get its number, and what libraries write to standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _lenient(stream))


def failure() -> OSError | None:
    """Why output was lost although somebody wants it, as on a full disk; None if it was not."""
    return _failure


class _Lenient(io.RawIOBase):
    """A raw stream that forgets what cannot be written."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # it would be closed with its last reference
        self._raw: Any = getattr(stream.buffer, "raw", stream.buffer)
        self._is_lost = False

    def write(self, data: Any) -> int | None:
        global _failure
        if not self._is_lost:
            try:
                written: int | None = self._raw.write(data)
                return written
            except OSError as error:
                self._is_lost = True
                if error.errno not in READER_GONE:
                    _failure = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return not self._is_lost and bool(self._raw.isatty())


def _lenient(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, which forgets what cannot be written or encoded."""
    stream.flush()
    raw = _Lenient(stream)
    through = stream.write_through
    buffer: Any = raw if through else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors="backslashreplace",  # the terminal's encoding may lack a character
        line_buffering=stream.line_buffering,
        write_through=through,
    )
