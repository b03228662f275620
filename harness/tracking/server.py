"""MLflow's pages over this project's store, served to this machine alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from harness.errors import BadRequest, RunFailed
from harness.privacy import mask
from harness.project import ROOT
from harness.tracking.address import tracking_uri

HOST = "127.0.0.1"
"""The pages have no login: nobody else may reach them."""

START_SECONDS = 60.0
"""Longest wait for the server to answer; the first start creates the database."""


def check_port(port: int) -> None:
    """Make sure that the port is free.

    Raises:
        BadRequest: it is taken; the message offers the next free one.
    """
    if not _is_free(port):
        free = next((p for p in range(port + 1, min(port + 100, 65536)) if _is_free(p)), None)
        offer = f" Free: --port {free}" if free else ""
        raise BadRequest(f"port: {port} is in use.{offer}")


@contextlib.contextmanager
def serving(port: int) -> Iterator[str]:
    """Serve the store on a port until the block ends; yields the address when it answers.

    Raises:
        RunFailed: the server ended, or did not answer in time.
    """
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Without it the server keeps more processes for jobs that the harness has none of.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", HOST, "--port", str(port), "--backend-store-uri", tracking_uri()),
            ],
            # Artifact locations in the store are relative to the root.
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://{HOST}:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = log.read().strip().rpartition("\n")[2]
                    raise RunFailed(f"MLflow's server did not start: {mask(last)}")
                time.sleep(0.1)
            yield address
        finally:
            # The server's own workers are in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
