"""Ctrl-C, SIGTERM and a closed terminal: an exception at a safe moment, the end at a second one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

HANG_UP = getattr(signal, "SIGHUP", None)
"""A terminal was closed. Its shell and the system may both say so."""

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that ask a process to end; Windows alone has the last one (Ctrl-Break)."""


class Interrupted(BaseException):
    """The user (Ctrl-C) or the system (SIGTERM, SIGHUP) wants the process to end.

    Attributes:
        status: The exit status that says so: 130, 143 or 129.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.status = 128 + signal_number


_deferring = 0
_pending: int | None = None
_seen: int | None = None


def install() -> None:
    """Make the signals raise `Interrupted` in the main thread; a second one ends the process.

    Under `nohup`, which has SIGHUP ignored, it stays so.
    A forked process calls this again, which clears what it inherited from its parent.
    """
    global _deferring, _pending, _seen
    _deferring, _pending, _seen = 0, None, None
    for name in NAMES:
        number = getattr(signal, name, None)
        if number and not (number == HANG_UP and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _handle)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold an interruption back until the block has ended, so that its work is done completely."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        _deliver()


def raise_pending() -> None:
    """Raise an interruption again that a library has swallowed, as some do while importing.

    Raises:
        Interrupted: A signal has arrived since `install`.
    """
    if _seen is not None:
        raise Interrupted(_seen)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _pending, _seen
    if _seen is not None:
        if number == HANG_UP:
            return
        os._exit(128 + number)
    _seen = number
    _pending = number
    _deliver()


def _deliver() -> None:
    global _pending
    if _pending is not None and not _deferring:
        number, _pending = _pending, None
        raise Interrupted(number)
