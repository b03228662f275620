"""How a command starts and ends: signals, messages, exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from harness.base import signals, streams
from harness.base.errors import BadRequest, RunFailed
from harness.base.formatting import harmless
from harness.base.privacy import mask
from harness.base.surroundings import ignore_foreign_settings

LONGEST_LINE = 400
"""Characters of a message's line; a longer line loses its middle."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def enter(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command and end the process with its exit status.

    0: success. 1: the work failed. 2: a bad request. 129, 130 and 143: interrupted by SIGHUP (a
    closed terminal), SIGINT (Ctrl-C) and SIGTERM. An expected error prints a short message, never a
    traceback.
    """
    streams.prepare()
    signals.install()
    ignore_foreign_settings()
    warnings.formatwarning = lambda message, *_: f"warning: {_presentable(str(message))}\n"
    try:
        status = main(sys.argv[1:])
    except BadRequest as error:
        status = print_error(error, 2)
    except RunFailed as error:
        status = print_error(error, 1)
    except signals.Interrupted as error:
        for note in getattr(error, "__notes__", ()):  # how to go on, for example
            with contextlib.suppress(OSError):
                print(harmless(note, lines=True), flush=True)
        status = error.status
    except BrokenPipeError:
        status = 1
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        status = print_error(error, 1)
    except SystemExit as error:
        code = error.code
        status = code if isinstance(code, int) else 0 if code is None else print_error(error, 1)
    leave(status)


def print_error(error: BaseException, status: int) -> int:
    """Print an error's message to standard error and return the status."""
    with contextlib.suppress(OSError):
        print(f"error: {_presentable(str(error))}", file=sys.stderr)
    return status


def wait_for_interruption() -> NoReturn:
    """Do nothing until Ctrl-C or SIGTERM.

    Raises:
        Interrupted: always, in the end.
    """
    while True:
        time.sleep(1)  # `signal.pause` would miss a signal that arrives just before it


def leave(status: int) -> NoReturn:
    """End the process at once. Everything that must survive is on disk by now.

    The interpreter's own exit takes up to two seconds once torch is imported. Output that cannot
    be written turns success into failure, unless nobody reads it any more.
    """
    sys.stdout.flush()
    if lost := streams.failure():
        status = print_error(RunFailed(f"The output was lost: {lost.strerror}."), status or 1)
    sys.stderr.flush()
    os._exit(status)


def _presentable(message: str) -> str:
    """The message without credentials and control characters, long lines without their middle."""
    half = LONGEST_LINE // 2
    shown = harmless(mask(message), lines=True)
    return "\n".join(
        line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
        for line in shown.splitlines()
    )
