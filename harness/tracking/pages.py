"""MLflow's pages over this project's store, served to this machine alone by default."""

from __future__ import annotations

import contextlib
import html
import ipaddress
import json
import os
import secrets
import socket
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.base import project
from harness.base.channel import start_module
from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.privacy import mask
from harness.base.processes import end_tree
from harness.base.signals import deferred
from harness.tracking import store_address
from harness.tracking.gate import Access
from harness.tracking.pages_server import Serving

LOOPBACK = "127.0.0.1"
"""Served here by default: what goes over a network is not encrypted."""

EVERYWHERE = ("0.0.0.0", "::")
"""As a host: all addresses of this machine."""

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


@dataclass(frozen=True)
class Pages:
    """Pages that are being served.

    Attributes:
        address: of the server on this machine.
        token: what each request must bring; "" if none is needed.
    """

    address: str
    token: str = ""

    def link(self, page: str) -> str:
        """The address of a page for a browser, with the token.

        Args:
            page: what follows the `#` of MLflow's addresses.
        """
        return f"{self.address}/{f'?token={self.token}' if self.token else ''}#/{page}"


def served_names(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The names and addresses by which a server is reached that listens on `host`.

    Args:
        more: further ones, such as the name of a proxy.
    """
    names = {host, "localhost", *more}
    if not is_loopback(host):
        full, short = socket.getfqdn(), socket.gethostname()
        names |= {full, short, short.partition(".")[0]}
    if host in EVERYWHERE:
        addresses = [each for found in psutil.net_if_addrs().values() for each in found]
        internet = (socket.AF_INET, socket.AF_INET6)
        names |= {each.address for each in addresses if each.family in internet}
    return frozenset(f"[{name}]" if ":" in name else name.lower() for name in names)


@contextlib.contextmanager
def serving(
    host: str,
    port: int,
    *,
    hosts: Iterable[str] = (),
    with_token: bool = True,
    uploads: bool = False,
) -> Iterator[Pages]:
    """Serve the store until the block ends; yield where, once it answers.

    Args:
        hosts: further names by which the server is reached; see `served_names`.
        with_token: whether requests need a token, which is made here.
        uploads: whether clients may store files.

    Raises:
        RunFailed: The store cannot be opened, or the server ended or did not answer in time.
    """
    folder, reads_only = project.mlruns(), store_address.is_read_only()
    if file := store_address.database_file():
        if store_address.is_empty():
            # The server would fail if a run created the database at the same time.
            from harness.tracking.recorder_process import ENVIRONMENT

            os.environ |= ENVIRONMENT | os.environ
            from harness.tracking.store import Store

            Store()
        store_address.check_database(file, reading=reads_only)
        folder = file.parent / "artifacts"
    locations = [str(folder)]
    if folder.is_relative_to(project.root()):
        locations.append(folder.relative_to(project.root()).as_posix())
    pages = Pages(_url(host, port), secrets.token_urlsafe(32) if with_token else "")
    settings = Serving(
        host=host,
        port=port,
        store=store_address.uri_to_read(),
        folder=str(folder),
        access=Access(
            hosts=served_names(host, hosts),
            token=pages.token,
            uploads=uploads,
            reads_only=reads_only,
            artifacts=tuple(locations),
        ),
    )
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with tempfile.TemporaryFile("w+") as log:
        process, connection = start_module(
            "harness.tracking.pages_server", environment=os.environ | quiet, errors=log
        )
        try:
            with contextlib.suppress(OSError):  # it has ended already
                connection.send(settings)
            deadline = time.monotonic() + START_SECONDS
            while not _answers(pages.address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = log.read().strip().rpartition("\n")[2]
                    raise RunFailed(f"MLflow's server did not start: {mask(last)}")
                time.sleep(0.1)
            yield pages
        finally:
            with deferred():
                connection.close()
                end_tree(process.pid)
                process.wait()


@contextlib.contextmanager
def opened_in_browser(link: str) -> Iterator[None]:
    """Open a link in the user's browser; within the block it can read the file that leads there.

    Others can read the command line of a browser, so the link, which holds the token, lies in a
    file of the user's own. It lies with the project: some browsers may not read elsewhere.
    """
    folder = project.mlruns() if os.access(project.mlruns(), os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="open-", dir=folder) as private:
        file = Path(private) / "mlflow.html"
        target = html.escape(link, quote=True)
        file.write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">'
            f'<a href="{target}">MLflow</a>'
        )
        webbrowser.open(file.as_uri())
        yield


def run_list(pages: Pages, experiment: str | None) -> str:
    """The page that lists an experiment's runs; by default of the experiment with the latest run.

    A first visit to any other page of MLflow lands in a mode for language models.

    Raises:
        BadRequest: there is no such experiment.
        RunFailed: the server does not answer.
    """
    found = _ask(pages, "experiments/search", {"max_results": 1000}).get("experiments", [])
    ids = {entry["name"]: entry["experiment_id"] for entry in found}
    if experiment is None:
        latest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        query = {"experiment_ids": list(ids.values()), **latest}
        runs = _ask(pages, "runs/search", query).get("runs")
        page = f"experiments/{runs[0]['info']['experiment_id']}/runs" if runs else "experiments"
    elif experiment in ids:
        page = f"experiments/{ids[experiment]}/runs"
    else:
        raise BadRequest(
            f"experiment: there are no runs of {experiment!r}. {nearest(experiment, ids)}"
        )
    return pages.link(f"{page}?workflowType=machine_learning")


def _ask(pages: Pages, method: str, query: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    headers = {"Content-Type": "application/json"}
    if token := pages.token or os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"{pages.address}/api/2.0/mlflow/{method}",
        data=json.dumps(query).encode(),
        headers=headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            answer: dict[str, list[dict[str, Any]]] = json.load(reply)
    except (OSError, ValueError) as error:
        raise RunFailed(
            f"MLflow at {mask(pages.address)} does not answer: {mask(str(error))}"
        ) from None
    return answer


def _url(host: str, port: int) -> str:
    reached = LOOPBACK if host in EVERYWHERE else host
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


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
