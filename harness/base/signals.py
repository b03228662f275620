"""Ctrl-C and SIGTERM: an exception at a safe moment, and at once the second time."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """The user (SIGINT) or the system (SIGTERM) wants the process to end.

    Attributes:
        status: the exit status that says so: 130 or 143.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.status = 128 + signal_number


_deferring = 0
_pending: int | None = None
_seen: int | None = None


def install() -> None:
    """Make SIGINT and SIGTERM raise `Interrupted` in the main thread, and the next one exit.

    A forked process calls it anew: what its parent was in the middle of does not concern it.
    """
    global _deferring, _pending, _seen
    _deferring, _pending, _seen = 0, None, None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold an interruption back until the block is done: what is written there stays whole."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        _raise_pending()


def raise_again() -> None:
    """Raise an interruption that came and that a library has swallowed, as some imports do.

    Raises:
        Interrupted: there was one.
    """
    if _seen is not None:
        raise Interrupted(_seen)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _pending, _seen
    if _seen is not None:
        os._exit(128 + number)
    _seen = number
    _pending = number
    _raise_pending()


def _raise_pending() -> None:
    global _pending
    if _pending is not None and not _deferring:
        number, _pending = _pending, None
        raise Interrupted(number)
