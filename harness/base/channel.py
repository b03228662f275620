"""A child process and a two-way connection to it, on every platform."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from typing import IO, Any

from harness.base.project import ROOT
from harness.base.signals import deferred

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
    its standard input is empty. Either end raises `EOFError` in `recv` once the other is closed,
    which the death of a process does too.

    An interruption that arrives during the call ends the child and is raised.

    Args:
        environment: The whole environment of the child.
        errors: Takes the child's standard output and standard error; by default it shares this
            process's.
    """
    ours, theirs = Pipe()
    process = None
    try:
        with theirs, deferred():
            handle = theirs.fileno()
            command = [sys.executable, "-m", module, str(handle), *arguments]
            if sys.platform == "win32":
                os.set_handle_inheritable(handle, True)
                startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    startupinfo=startup,
                    creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
                )
            else:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=[handle],
                    start_new_session=True,
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
