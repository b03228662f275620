"""The ui command serves this machine alone, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def ui(tmp_path: Path, *words: str, browser: str = "") -> Iterator[subprocess.Popen[str]]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.ui", *([] if browser else ["--no-browser"]), *words],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri} | ({"BROWSER": browser} if browser else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processes_with(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command and folder.name != str(os.getpid()):
            found.append(command)
    return found


def listening_addresses(port: int) -> set[str]:
    """Where this machine's kernel has sockets that listen on a port (IPv4 and IPv6)."""
    table = [
        line.split()
        for name in ("tcp", "tcp6")
        if (path := Path("/proc/net") / name).is_file()
        for line in path.read_text().splitlines()[1:]
    ]
    listening = [row[1].split(":") for row in table if row[3] == "0A"]
    return {
        socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else address
        for address, number in listening
        if int(number, 16) == port
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    with ui(tmp_path, "--port", str(port)) as process:
        assert process.stdout
        ready = process.stdout.readline()
        assert f"http://127.0.0.1:{port}/#/experiments" in ready
        assert "workflowType=machine_learning" in ready
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
            assert reply.status == 200
        if sys.platform == "linux":
            assert listening_addresses(port) == {"127.0.0.1"}
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    if sys.platform == "linux":
        assert processes_with(f"--port\0{port}") == []


def test_an_interruption_ends_it_in_order_as_soon_as_it_has_said_that_it_is_ready(
    tmp_path: Path,
) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\nkill -TERM $PPID\n")
    browser.chmod(0o755)
    with ui(tmp_path, "--port", str(free_port()), browser=f"{browser} %s") as process:
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "Ctrl-C ends it." in output


def test_a_busy_port_is_explained_and_the_next_free_one_offered(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with ui(tmp_path, "--port", str(port)) as process:
            _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"port: {port} is in use" in errors
    assert "--port" in errors.partition("Free:")[2]
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's table of sockets is Linux's")
def test_another_host_is_served_on_demand_and_warned_of(tmp_path: Path) -> None:
    port = free_port()
    with ui(tmp_path, "--port", str(port), "--host", "0.0.0.0") as process:
        assert process.stdout
        assert process.stderr
        assert f"http://127.0.0.1:{port}/#/experiments" in process.stdout.readline()
        assert listening_addresses(port) == {"0.0.0.0"}
        warning = process.stderr.readline()
        assert warning.startswith("warning: all who can reach 0.0.0.0 can")
        assert "no login" in warning
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    with ui(tmp_path, "--port", str(free_port()), "--experiment", "nobody") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.startswith("error: experiment: nothing was recorded in sqlite:///")
    assert "Traceback" not in errors


@pytest.mark.parametrize("port", ["0", "80", "70000", "x"])
def test_a_port_out_of_range_is_refused(tmp_path: Path, port: str) -> None:
    with ui(tmp_path, "--port", port) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in errors
