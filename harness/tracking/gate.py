"""Who may ask MLflow's pages for what: a layer around the application that serves them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

_Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[_Event]]
Send = Callable[[_Event], Awaitable[None]]
Application = Callable[[_Event, Receive, Send], Awaitable[None]]

_API = r"/(?:ajax-)?api/[23]\.0/mlflow"
_STORED_FILES = r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/.*)?"

_SERVED = re.compile(
    r"/|/version|/graphql|/static-files/.+|/get-artifact|/model-versions/get-artifact"
    rf"|{_API}/server-info|{_STORED_FILES}"
    rf"|{_API}/(?:experiments|runs|metrics|registered-models|model-versions)/[a-z-]+"
    rf"|{_API}/logged-models(?:/.+)?|{_API}/artifacts/list|{_API}/upload-artifact"
)
"""What the pages and clients of runs and models need. MLflow serves more under the same address,
also what runs commands (its assistant), sends requests to anywhere (gateway, webhooks) or takes
data from anybody (jobs, MCP, traces), and each version adds to it."""

_NOT_SERVED = re.compile(rf"{_API}/(?:runs/create-promptlab-run|.*/presigned.*)")

_GATEWAY = "/ajax-api/2.0/mlflow/gateway-proxy"
"""The run list asks it for the endpoints of a gateway. It gets none from here: it would show an
error otherwise. Nothing is passed on."""

_LOCATION = re.compile(rb'"(artifact_uri|artifact_location)":\s*"((?:[^"\\]|\\.)*)"')

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.IGNORECASE)

_LANDING = b"""<!doctype html><meta charset="utf-8"><title>MLflow</title><script>
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
const page = new URL(location);
page.searchParams.delete("token");
location.replace(page);
</script>"""
"""Takes the token out of the address. A redirect would lose the strict cookie if the visit began
on another site. MLflow's assistant, which is not served, does not open its panel by itself."""


_SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


@dataclass(frozen=True)
class Access:
    """To whom a server answers, and what they may do.

    Attributes:
        hosts: names and addresses by which it is served, without a port: one's own page on a
            foreign name that leads here (DNS rebinding) would be the same site to a browser. Any
            port is right, because a tunnel has another one.
        token: what each request must bring; "" if none is needed.
        uploads: whether clients may store and delete files.
        reads_only: whether the store may only be read.
        artifacts: the folder of the stored files, as their locations name it; clients in another
            folder are told to fetch them from here.
    """

    hosts: frozenset[str]
    token: str
    uploads: bool
    reads_only: bool
    artifacts: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """An ASGI application that lets through what it should to another one behind it."""

    application: Application
    access: Access

    async def __call__(self, scope: _Event, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        path, method = scope["path"], scope["method"]
        named = _HOST.fullmatch(_only(headers, b"host"))
        if not named or named[1].lower() not in self.access.hosts:
            await _answer(send, 403, "This host is not served here; see harness.ui --allowed-hosts")
            return
        if path == "/health":
            await self.application(scope, receive, send)
            return
        origin = _only(headers, b"origin")
        if origin and origin.lower().partition("://")[2] != named[0].lower():
            await _answer(send, 403, "Requests from pages of another site are refused.")
            return
        cookie = f"harness-token-{named[2] or 80}"
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if asked and method == "GET" and (not self.access.token or self._is_token(asked)):
            await _answer(send, 200, _LANDING, self._cookie(cookie))
            return
        if self.access.token and not self._is_let_in(headers, cookie):
            message = "Open the link that harness.ui has printed: it holds the token. "
            message += "Clients send the token in MLFLOW_TRACKING_TOKEN."
            await _answer(send, 401, message, (b"www-authenticate", b"Bearer"))
            return
        if (method, path) == ("GET", _GATEWAY):
            await _answer(send, 200, '{"endpoints": []}')
            return
        if not _SERVED.fullmatch(path) or _NOT_SERVED.fullmatch(path):
            await _answer(send, 404, "This is not served here.")
            return
        if self.access.reads_only and not _reads(path, method):
            await _answer(send, 403, "The store may only be read.")
            return
        if not self.access.uploads and _stores_files(path, method):
            await _answer(send, 403, "Files are not taken here; see harness.ui --allow-uploads.")
            return
        if path.endswith("/experiments/create"):
            receive, body = await _read(receive)
            if _chooses_location(body):
                await _answer(send, 403, "The server chooses where an experiment's files lie.")
                return
        # It is of the same site; MLflow would compare it with a list of its own.
        scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"origin"]}
        if path.startswith("/api/") and "-artifacts/" not in path:
            send = self._relocating(send)
        await self.application(scope, receive, send)

    def _is_let_in(self, headers: list[tuple[bytes, str]], cookie: str) -> bool:
        scheme, _, token = _only(headers, b"authorization").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(token.strip()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(";".join(value for name, value in headers if name == b"cookie"))
        except CookieError:
            return False
        return cookie in cookies and self._is_token(cookies[cookie].value)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(_digest(text), _digest(self.access.token))

    def _cookie(self, name: str) -> tuple[bytes, bytes]:
        value = f"{name}={self.access.token}; HttpOnly; SameSite=Strict; Path=/"
        return b"set-cookie", value.encode()

    def _relocating(self, send: Send) -> Send:
        """Name the stored files, in answers to clients, as files of this server."""
        start: _Event = {}
        parts: list[bytes] = []

        def located(found: re.Match[bytes]) -> bytes:
            location = json.loads(b'"%s"' % found[2])
            for folder in self.access.artifacts:
                if location == folder or location.startswith(f"{folder}/"):
                    location = f"mlflow-artifacts:{location.removeprefix(folder) or '/'}"
                    return b'"%s": %s' % (found[1], json.dumps(location).encode())
            return found[0]

        async def relocated(message: _Event) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = _LOCATION.sub(located, b"".join(parts))
            length = (b"content-length", str(len(body)).encode())
            kept = [pair for pair in start["headers"] if pair[0].lower() != length[0]]
            await send({**start, "headers": [*kept, length]})
            await send({"type": "http.response.body", "body": body})

        return relocated


def _digest(text: str) -> bytes:
    """Of equal length for every text, so that a comparison tells nothing by its time."""
    return hashlib.sha256(text.encode()).digest()


def _only(headers: list[tuple[bytes, str]], name: bytes) -> str:
    """The value of a header that may occur once; "" if it is missing or ambiguous."""
    values = [value for key, value in headers if key == name]
    return values[0] if len(values) == 1 else ""


def _reads(path: str, method: str) -> bool:
    return method in _SAFE or bool(
        re.search(r"/(?:search|search-[a-z-]+|get-[a-z-]+|graphql)$", path)
    )


def _stores_files(path: str, method: str) -> bool:
    return path.endswith("/upload-artifact") or (
        bool(re.fullmatch(_STORED_FILES, path)) and method not in _SAFE
    )


def _chooses_location(body: bytes) -> bool:
    """Whether a request names the folder of an experiment's files, which may be any of the user's.

    What cannot be read counts as such a request.
    """
    try:
        asked = json.loads(body)
        return any(
            asked[name] for name in ("artifact_location", "artifactLocation") if name in asked
        )
    except (ValueError, TypeError, RecursionError):
        return True


async def _read(receive: Receive) -> tuple[Receive, bytes]:
    """The whole body of a request, and a way to receive it once more."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)

    async def again() -> _Event:
        return {"type": "http.request", "body": body, "more_body": False}

    return again, body


async def _answer(
    send: Send, status: int, text: str | bytes, *headers: tuple[bytes, bytes]
) -> None:
    kind = b"text/html" if isinstance(text, bytes) else b"text/plain; charset=utf-8"
    body = text if isinstance(text, bytes) else text.encode()
    plain = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *headers]})
    await send({"type": "http.response.body", "body": body})
