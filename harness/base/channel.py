"""A child process and a two-way connection to it, on every platform."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from typing import IO, Any

from harness.base import project
from harness.base.processes import OWN_SESSION
from harness.base.signals import deferred
from harness.base.surroundings import without_foreign_settings

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection

    Connection = PipeConnection
else:
    from multiprocessing import connection

    Connection = connection.Connection


def start_module(
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    errors: IO[Any] | None = None,
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start `python -m module` in the project's root; return the process and this end.

    The child finds its own end with `inherited_connection(sys.argv[1])`; `arguments` follow. It
    leads a session (on Windows a process group) of its own, so that Ctrl-C does not reach it, and
    its standard input is empty. Once one end is closed, or its process has died, `recv` at the
    other end raises `EOFError`, or `ConnectionResetError` if messages were left unread.

    An interruption that arrives during the call ends the child and is raised.

    Args:
        environment: The whole environment of the child, but for the name of the project and what
            `without_foreign_settings` changes.
        errors: Takes the child's standard output and standard error; by default it shares this
            process's.
    """
    ours, theirs = Pipe()
    process = None
    try:
        with theirs, deferred():
            handle = theirs.fileno()
            passing: dict[str, Any]
            if sys.platform == "win32":
                os.set_handle_inheritable(handle, True)
                attributes = {"handle_list": [handle]}
                passing = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList=attributes)}
            else:
                passing = {"pass_fds": [handle]}
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(handle), *arguments],
                cwd=project.root(),
                env=project.environment_for_child(without_foreign_settings(environment)),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                **OWN_SESSION,
                **passing,
            )
    except BaseException:
        ours.close()
        if process:
            process.kill()
            process.wait()
        raise
    return process, ours


def inherited_connection(word: str) -> Connection:
    """In the child: its end of the connection, from its first command line argument."""
    handle = int(word)
    # The child's own children must not keep the connection open.
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, False)
    else:
        os.set_inheritable(handle, False)
    return Connection(handle)
