"""Channels: a child that is spoken with, its death, and what it inherits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from harness.base import project, signals
from harness.base.channel import Connection, start_module

pytestmark = pytest.mark.processes

ECHO = """
import os, sys
from harness.base.channel import inherited_connection

connection = inherited_connection(sys.argv[1])
connection.send({"arguments": sys.argv[2:], "folder": os.getcwd(), "input": sys.stdin.read()})
while True:
    try:
        message = connection.recv()
    except EOFError:
        sys.exit(7)
    if message == "die":
        os._exit(3)
    if message == "session":
        connection.send(os.getsid(0) == os.getpid())
    elif message == "start a child":
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
            close_fds=False)
        connection.send(child.pid)
        os._exit(0)
    elif message == "project":
        from harness.base import project
        connection.send(project.root())
    elif message == "complain":
        print("to the error file", file=sys.stderr, flush=True)
        connection.send("done")
    else:
        connection.send(message)
"""

Start = Callable[..., tuple["subprocess.Popen[bytes]", Connection]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a child that answers what it is sent."""
    (tmp_path / "echo_child.py").write_text(textwrap.dedent(ECHO))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    return lambda *words, **options: start_module(
        "echo_child", *words, environment=environment, **options
    )


def test_a_child_is_spoken_with_both_ways_and_ends_when_this_end_is_closed(start: Start) -> None:
    process, connection = start("one", "two words")
    assert connection.recv() == {
        "arguments": ["one", "two words"],
        "folder": str(ROOT),
        "input": "",
    }
    for message in ("text", {"bytes": bytes(3_000_000)}, None):
        connection.send(message)
        assert connection.recv() == message
    connection.close()
    assert process.wait(timeout=20) == 7


def test_a_child_is_of_the_same_project_although_its_folder_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo_child.py").write_text(textwrap.dedent(ECHO))
    own = tmp_path / "own"
    for folder in project.FOLDERS:
        (own / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "root", lambda: own)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        project.VARIABLE: "own",
    }
    process, connection = start_module("echo_child", environment=environment)
    with connection:
        assert connection.recv()["folder"] == str(own)
        connection.send("project")
        assert connection.recv() == own
    assert process.wait(timeout=20) == 7


def test_the_death_of_a_child_closes_the_connection(start: Start) -> None:
    process, connection = start()
    with connection:
        connection.recv()
        connection.send("die")
        with pytest.raises(EOFError):
            connection.recv()
    assert process.wait(timeout=20) == 3


def test_a_killed_child_closes_the_connection_although_another_one_lives(start: Start) -> None:
    first, to_first = start()
    second, to_second = start()
    with to_first, to_second:
        to_first.recv()
        to_second.recv()
        first.kill()
        with pytest.raises((EOFError, ConnectionResetError)):
            to_first.recv()
        first.wait()
        to_second.send("still here")
        assert to_second.recv() == "still here"
    second.wait(timeout=20)


def test_a_child_of_the_child_does_not_keep_the_connection_open(start: Start) -> None:
    process, connection = start()
    with connection:
        connection.recv()
        connection.send("start a child")
        connection.recv()
        with pytest.raises(EOFError):
            connection.recv()
    process.wait(timeout=20)


def test_what_a_child_prints_goes_to_the_file_of_its_errors(start: Start) -> None:
    with tempfile.TemporaryFile("w+") as errors:
        process, connection = start(errors=errors)
        with connection:
            connection.recv()
            connection.send("complain")
            connection.recv()
        process.wait(timeout=20)
        errors.seek(0)
        assert errors.read() == "to the error file\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sessions")
def test_a_child_leads_a_session_of_its_own(start: Start) -> None:
    process, connection = start()
    with connection:
        connection.recv()
        connection.send("session")
        assert connection.recv() is True
    process.wait(timeout=20)


def test_no_function_is_needed_that_only_some_platforms_have(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fork", "setsid", "killpg", "wait4"):
        monkeypatch.delattr(os, name, raising=False)
    process, connection = start()
    with connection:
        connection.recv()
        connection.send(1)
        assert connection.recv() == 1
    process.wait(timeout=20)


def test_an_interruption_during_the_start_leaves_no_child(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        process = real(*arguments, **options)  # type: ignore[call-overload]
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        return process  # type: ignore[no-any-return]

    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install()
    try:
        monkeypatch.setattr(subprocess, "Popen", interrupted)
        with pytest.raises(signals.Interrupted):
            start()
    finally:
        signals.install()
        for number, handler in before.items():
            signal.signal(number, handler)
    (process,) = started
    assert process.returncode is not None
