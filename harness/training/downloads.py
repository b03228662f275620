"""Data sets that torchvision downloads and checks, without a trace of an interrupted download."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

from filelock import FileLock

from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.privacy import mask

SILENCE_SECONDS = 10.0
"""How long a download server may stay silent, including while connecting."""

WINDOW_SECONDS = 30.0
"""In each such time a download server sends at least `FEWEST_BYTES`, or it is given up."""

FEWEST_BYTES = 30_000
"""What a server that is of use sends in `WINDOW_SECONDS`."""


class DataUnavailable(RunFailed):
    """A data set is neither on disk nor downloadable, or its files are damaged."""


def torchvision_class(class_name: str) -> Any:
    """A class of `torchvision.datasets`; the mirror of HARNESS_DATA_MIRROR serves what has mirrors.

    Raises:
        BadRequest: there is no such class.
        DataUnavailable: the mirror's address holds a password.
    """
    from torchvision import datasets  # a data set that is on disk does without torchvision

    if class_name not in datasets.__all__:
        raise BadRequest(
            f"from_torchvision: torchvision has no data set {class_name!r}. "
            f"{nearest(class_name, datasets.__all__)}"
        )
    dataset_class = getattr(datasets, class_name)
    mirror = os.environ.get("HARNESS_DATA_MIRROR")
    if not mirror or not hasattr(dataset_class, "mirrors"):
        return dataset_class
    if "@" in mirror:  # urllib would take it for a part of the host's name, and show it
        raise DataUnavailable(
            "HARNESS_DATA_MIRROR holds a user name or password, which a download cannot send "
            "(an @ in a path is written %40)."
        )
    return type(class_name, (dataset_class,), {"mirrors": [mirror.rstrip("/") + "/"]})


def download(
    name: str,
    root: Path,
    is_there: Callable[[], bool],
    fetch: Callable[[Path], object],
    ways_out: str,
) -> None:
    """Download into a staging folder, then move the complete files below `root`.

    Processes that need the same data wait for the first one.

    Args:
        is_there: whether another process has downloaded the data meanwhile.
        fetch: downloads into the folder that it is given.
        ways_out: what the user may do if the download fails.

    Raises:
        DataUnavailable: the download failed.
    """
    staging = root / f".{name}-download"
    lock = root / f".{name}.lock"
    was_there = os.path.exists(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if is_there():
                return
            shutil.rmtree(staging, ignore_errors=True)
            try:
                with _limits():
                    fetch(staging)
                for path in [path for path in staging.rglob("*") if path.is_file()]:
                    target = root / path.relative_to(staging)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except (OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException) as error:
        with contextlib.suppress(OSError):  # a mistyped folder leaves no trace
            lock.unlink(missing_ok=True)
            if not was_there:
                root.rmdir()
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = "the disk is full" if full else " ".join(mask(str(error)).split())
        raise DataUnavailable(
            f"{name} is not in {root} and cannot be downloaded: {reason}\nWays out: {ways_out}"
        ) from None


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Have every download in the block give up a server that is silent, or too slow."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    http.client.HTTPConnection.response_class = _WatchedResponse
    try:
        yield
    finally:
        http.client.HTTPConnection.response_class = http.client.HTTPResponse
        socket.setdefaulttimeout(before)


class _GivenUp(URLError):
    """A server is of no use; torchvision goes on with the next mirror, if there is one."""

    def __str__(self) -> str:
        return str(self.reason)


class _Watched(io.RawIOBase):
    """What a server sends; each window of time counts on its own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._received, self._since = 0, time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            raise _GivenUp(f"timed out: the server was silent for {SILENCE_SECONDS:g} s") from None
        self._received += count or 0
        passed = time.monotonic() - self._since
        if passed >= WINDOW_SECONDS:
            if count and self._received < FEWEST_BYTES:
                raise _GivenUp(f"the server sent {self._received:,} bytes in {passed:.0f} s")
            self._received, self._since = 0, time.monotonic()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _WatchedResponse(http.client.HTTPResponse):
    """An answer that is read from a watched server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_Watched(self.fp.detach()))
