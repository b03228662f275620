"""The ui command serves this machine alone, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Checkout, Recorded, free_port, processes_in

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
        assert re.search(rf"http://127\.0\.0\.1:{port}/\?token=[\w-]{{40,}}#/experiments", ready)
        assert "workflowType=machine_learning" in ready
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
            assert reply.status == 200
        if sys.platform == "linux":
            assert listening_addresses(port) == {"127.0.0.1"}
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    assert processes_in(ROOT, ["harness.tracking.pages_server"]) == []


def test_an_interruption_ends_it_in_order_as_soon_as_it_has_said_that_it_is_ready(
    tmp_path: Path,
) -> None:
    browser = tmp_path / "browser"
    opened = tmp_path / "opened"
    browser.write_text(
        f"#!/bin/sh\nfile=${{1#file://}}\n(echo $1; cat $file) > {opened}\nkill -TERM $PPID\n"
    )
    browser.chmod(0o755)
    with ui(tmp_path, "--port", str(free_port()), browser=f"{browser} %s") as process:
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "Ctrl-C ends it." in output
    (link,) = re.findall(r"http\S+", output)
    address, _, page = opened.read_text().partition("\n")
    # Others can read the browser's command line, but not the file.
    assert address.startswith("file://")
    assert f'url={html.escape(link)}"' in page
    assert not Path(urllib.request.url2pathname(address.removeprefix("file://"))).exists()


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
    with ui(tmp_path, "--port", str(port), "--host", "0.0.0.0", "--no-token") as process:
        assert process.stdout
        assert process.stderr
        assert f"http://127.0.0.1:{port}/#/experiments" in process.stdout.readline()
        assert listening_addresses(port) == {"0.0.0.0"}
        network, token = process.stderr.readline(), process.stderr.readline()
        assert network.startswith("warning: 0.0.0.0 can be reached from other machines")
        assert token.startswith("warning: without a token, everybody who reaches this machine can")
        for name in (socket.gethostname(), socket.getfqdn(), "localhost", "127.0.0.1"):
            assert asked(port, "/version", host=f"{name}:{port}")[0] == 200, name
        assert asked(port, "/version", host=f"10.evil.example:{port}")[0] == 403
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


# ---- who gets in, and to what ----


@dataclass(frozen=True)
class Served:
    checkout: Checkout
    port: int
    token: str


@pytest.fixture(scope="module")
def served(finished: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # A copy: clients write, and other tests count what is in the store.
    checkout = Checkout(tmp_path_factory.mktemp("served") / "checkout")
    shutil.copytree(finished[0].root, checkout.root)
    with checkout.serving() as link:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)#.*", link)
        assert found
        yield Served(checkout, int(found[1]), found[2])


def asked(
    port: int,
    path: str,
    method: str = "GET",
    body: object = None,
    host: str | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:
    """What a server on this machine answers to a request with exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    text = None if body is None else body if isinstance(body, str) else json.dumps(body)
    connection.putrequest(method, path, skip_host=True)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Host": host or f"127.0.0.1:{port}", "Content-Type": "application/json", **named}
    sent |= {"Content-Length": str(len(text))} if text is not None else {}
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(text.encode() if text is not None else None)
    with contextlib.closing(connection):
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read().decode(errors="replace")


def with_token(served: Served, path: str, *words: object, **headers: str) -> tuple[int, str]:
    status, _, text = asked(
        served.port,
        path,
        *words,  # type: ignore[arg-type]
        **{"Authorization": f"Bearer {served.token}", **headers},
    )
    return status, text


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=10"


@pytest.mark.parametrize(
    "host",
    [
        *("10.evil.example", "192.168.evil.example", "evil.example", "127.0.0.1.evil.example"),
        *("evil.example:{port}", "localhost.", "user@127.0.0.1", "127.0.0.1:x", "[::1", "", " "),
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/graphql", SEARCH])
def test_a_foreign_host_is_refused_for_every_request(served: Served, host: str, path: str) -> None:
    named = host.format(port=served.port) or "\t"
    for method in ("GET", "POST", "OPTIONS"):
        assert with_token(served, path, method, None, named)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:8888"])
def test_this_machine_is_served_through_a_tunnel_too(served: Served, host: str) -> None:
    assert with_token(served, SEARCH, "GET", None, host.format(port=served.port))[0] == 200


@pytest.mark.parametrize("path", ["/", "/version", "/graphql", SEARCH, "/get-artifact", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic {token}"},
        {"Cookie": "harness-token-{port}=wrong"},
        {"Cookie": "other={token}"},
        {"Cookie": "harness-token-{port}"},
        {"Cookie": 'a="\x01; =;;'},
    ],
)
def test_nothing_is_served_without_the_token(
    served: Served, path: str, headers: dict[str, str]
) -> None:
    filled = {
        name: text.replace("{token}", served.token).replace("{port}", str(served.port))
        for name, text in headers.items()
    }
    for method in ("GET", "POST", "HEAD"):
        assert asked(served.port, path, method, **filled)[0] == 401
    assert asked(served.port, f"{path}?token=wrong", **filled)[0] == 401


def test_the_link_keeps_the_token_in_a_strict_cookie(served: Served) -> None:
    status, headers, text = asked(served.port, f"/?token={served.token}")
    assert status == 200
    cookie, *rest = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(rest)
    assert served.token not in text
    assert headers["cache-control"] == "no-store"
    assert asked(served.port, SEARCH, Cookie=f"other=1; {cookie}")[0] == 200
    # The page's own requests have this origin, those of another port's or site's page do not.
    search = ("/ajax-api/2.0/mlflow/runs/search", "POST", {"experiment_ids": ["1"]})
    own = f"http://127.0.0.1:{served.port}"
    assert asked(served.port, *search, Cookie=cookie, Origin=own)[0] == 200
    for origin in ("http://127.0.0.1:1", "http://localhost", "https://evil.example", "null"):
        assert asked(served.port, *search, Cookie=cookie, Origin=origin)[0] == 403


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_token_is_on_no_command_line(served: Served) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert served.token not in " ".join(process.cmdline())


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/mlflow/gateway/secrets/list",
        "/gateway/name/mlflow/invocations",
        "/gateway/mlflow/v1/chat/completions",
        "/ajax-api/3.0/mlflow/jobs/1",
        "/ajax-api/3.0/jobs/1",
        "/api/3.0/mlflow/mcp-servers",
        "/v1/traces",
        "/v1/metrics",
        "/api/3.0/mlflow/traces",
        "/api/2.0/mlflow/webhooks",
        "/ajax-api/3.0/mlflow/scorer/invoke",
        "/ajax-api/3.0/mlflow/genai/evaluate/invoke",
        "/ajax-api/3.0/mlflow/demo/generate",
        "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
        "/ajax-api/2.0/mlflow/artifacts/presigned-upload-url",
        "//ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/experiments/../assistant/config",
        "/ajax-api/3.0/mlflow/%61ssistant/config",
        "/openapi.json",
        "/docs",
    ],
)
def test_what_runs_commands_or_takes_data_from_anybody_is_not_served(
    served: Served, path: str
) -> None:
    for method in ("GET", "POST", "PUT", "PATCH"):
        assert with_token(served, path, method, {})[0] == 404


def test_no_request_is_passed_on_to_a_gateway(served: Served) -> None:
    path = "/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=api/2.0/endpoints/"
    assert with_token(served, path) == (200, '{"endpoints": []}')
    assert with_token(served, path, "POST", {"gateway_path": "x"})[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "artifact_location": "/etc"},
        {"name": "x", "artifactLocation": "file:///etc"},
        json.dumps(json.dumps({"name": "x", "artifact_location": "/etc"})),
        "no json",
    ],
)
def test_a_client_cannot_choose_where_files_lie(served: Served, body: object) -> None:
    for prefix in ("/api", "/ajax-api"):
        path = f"{prefix}/2.0/mlflow/experiments/create"
        assert with_token(served, path, "POST", body)[0] == 403


def test_files_are_taken_only_when_asked_for(served: Served, tmp_path: Path) -> None:
    stored = "mlflow-artifacts/artifacts/1/x.txt"
    for prefix in ("/api/2.0/", "/ajax-api/2.0/"):
        for method in ("PUT", "DELETE", "POST"):
            assert with_token(served, f"{prefix}{stored}", method, "x")[0] == 403
    run_id = served.checkout.runs()[0].info.run_id
    path = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path=x.txt"
    assert with_token(served, path, "POST", "x")[0] == 403
    assert "path" in asked_of(served, f"artifacts/list?run_id={run_id}")
    assert "x.txt" not in asked_of(served, f"artifacts/list?run_id={run_id}")


def asked_of(served: Served, call: str) -> str:
    status, text = with_token(served, f"/api/2.0/mlflow/{call}")
    assert status == 200, text
    return text


CLIENT = """
import mlflow
client = mlflow.MlflowClient()
run = client.search_runs(["1"])[0]
path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="experiment.json")
print(open(path).read())
print(mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model"))
model = client.search_logged_models(["1"])[0]
print(mlflow.pytorch.load_model(f"models:/{model.model_id}"))
try:
    with mlflow.start_run():
        mlflow.log_text("x", "x.txt")
except Exception as error:
    print("refused:", error)
"""


def test_a_client_in_another_folder_fetches_files_and_models(
    served: Served, tmp_path: Path
) -> None:
    changes = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{served.port}",
        "MLFLOW_TRACKING_TOKEN": served.token,
    }
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT],
        cwd=tmp_path,
        env=served.checkout.environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert '"hidden_width": 256' in ended.stdout
    assert ended.stdout.count("GraphModule") == 2
    assert "--allow-uploads" in ended.stdout.partition("refused:")[2]
    assert list(tmp_path.iterdir()) == []
    assert not (served.checkout.root / "mlartifacts").exists()


def test_with_uploads_a_client_records_through_the_address(tmp_path: Path) -> None:
    port = free_port()
    with ui(tmp_path, "--port", str(port), "--allow-uploads") as process:
        assert process.stdout
        token = re.findall(r"token=([\w-]+)", process.stdout.readline())[0]
        changes = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_TRACKING_TOKEN": token,
        }
        script = "import mlflow; mlflow.set_experiment('e'); mlflow.log_text('hello', 'a.txt')"
        subprocess.run(
            [sys.executable, "-c", script], check=True, cwd=tmp_path, env=os.environ | changes
        )
    assert [file.read_text() for file in (tmp_path / "artifacts").rglob("a.txt")] == ["hello"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_the_server_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with ui(tmp_path, "--port", str(port)) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.kill()
    deadline = time.monotonic() + 60
    while processes_in(ROOT, ["harness.tracking.pages_server"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
