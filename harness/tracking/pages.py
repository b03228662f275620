"""MLflow's pages over this project's store, served to this machine alone by default."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from harness.base import project
from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.privacy import mask
from harness.base.processes import child_process
from harness.tracking import store_address

LOOPBACK = "127.0.0.1"
"""Served here by default: the pages have no login, so nobody else should reach them."""

FIRST_PORT = 5000
"""MLflow's usual port; on macOS a system service may hold it."""

START_SECONDS = 60.0
"""How long the server may take to answer. The first start creates the database."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server on that host."""
    return ipaddress.ip_address(host).is_loopback


def choose_port(host: str, port: int | None = None) -> int:
    """Return the port to serve on: the requested one, or the first free one from `FIRST_PORT`.

    Raises:
        BadRequest: the host is not an address of this machine, or the port is in use; the message
            offers a free one.
    """
    try:
        ipaddress.ip_address(host)
        _bind(host, 0)
    except (ValueError, OSError):
        raise BadRequest(
            f"host: {host!r} is not an address of this machine; "
            f"expected one like {LOOPBACK}, or 0.0.0.0 for all of them."
        ) from None
    if port and _is_free(host, port):
        return port
    first = port + 1 if port else FIRST_PORT
    free = next((p for p in range(first, min(first + 100, 65536)) if _is_free(host, p)), None)
    if port or not free:
        offer = f" Free: --port {free}" if free else ""
        raise BadRequest(f"port: {port or FIRST_PORT} is in use.{offer}")
    return free


@contextlib.contextmanager
def serving(host: str, port: int) -> Iterator[str]:
    """Serve the store until the block ends; yield its URL on this machine once it answers.

    Raises:
        RunFailed: The store cannot be opened, or the server ended or did not answer in time.
    """
    if file := store_address.database_file():
        if store_address.is_empty():
            # The server would fail if a run created the database at the same time.
            from harness.tracking.recorder_process import ENVIRONMENT

            os.environ |= ENVIRONMENT | os.environ
            from harness.tracking.store import Store

            Store()
        store_address.check_database(file)
    environment = os.environ | {
        # Other users of the machine can read its command line, but not its environment.
        "MLFLOW_BACKEND_STORE_URI": store_address.tracking_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # The harness has no jobs; the server would start processes for them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    with (
        tempfile.TemporaryFile("w+") as log,
        child_process(
            command,
            own_session=True,
            cwd=project.root(),  # artifact locations in the store are relative to it
            env=environment,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        reached = LOOPBACK if host in ("0.0.0.0", "::") else host
        here = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(here):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                last = log.read().strip().rpartition("\n")[2]
                raise RunFailed(f"MLflow's server did not start: {mask(last)}")
            time.sleep(0.1)
        yield here


def run_list(address: str, experiment: str | None) -> str:
    """The page that lists an experiment's runs; by default of the experiment with the latest run.

    A first visit to any other page of MLflow lands in a mode for language models.

    Args:
        address: of the server.

    Raises:
        BadRequest: there is no such experiment.
        RunFailed: the server does not answer.
    """
    found = _ask(address, "experiments/search", {"max_results": 1000}).get("experiments", [])
    ids = {entry["name"]: entry["experiment_id"] for entry in found}
    if experiment is None:
        latest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        query = {"experiment_ids": list(ids.values()), **latest}
        runs = _ask(address, "runs/search", query).get("runs")
        page = f"experiments/{runs[0]['info']['experiment_id']}/runs" if runs else "experiments"
    elif experiment in ids:
        page = f"experiments/{ids[experiment]}/runs"
    else:
        raise BadRequest(
            f"experiment: there are no runs of {experiment!r}. {nearest(experiment, ids)}"
        )
    return f"{address}/#/{page}?workflowType=machine_learning"


def _ask(address: str, method: str, query: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{method}",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            answer: dict[str, list[dict[str, Any]]] = json.load(reply)
    except (OSError, ValueError) as error:
        raise RunFailed(f"MLflow at {mask(address)} does not answer: {mask(str(error))}") from None
    return answer


def _answers(here: str) -> bool:
    try:
        with urllib.request.urlopen(f"{here}/health", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
