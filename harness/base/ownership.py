"""Who works on a run or trial, and whether that process still lives. Anonymous: no names."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.files import write_whole
from harness.base.project import MLRUNS

REGISTER = MLRUNS / "processes"
"""A file for each process that works on something; one that ends in order takes its own away."""


@dataclass(frozen=True)
class Owner:
    """One process of one boot of one machine.

    Attributes:
        started: when the process began, in the machine's own words: process ids are used again.
        boot: the boot that the process id belongs to.
        machine: a digest that tells machines (and containers, whose process ids are their own)
            apart, and does not tell which they are.
    """

    pid: int
    started: str
    boot: str
    machine: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return cls(os.getpid(), _started(os.getpid()), _boot(), _machine())

    @classmethod
    def from_text(cls, text: str) -> Owner:
        """Read what `str` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if the process lives."""
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; never true of another machine's."""
        if not self.is_here:
            return False
        return self.boot != _boot() or _started(self.pid) != self.started


def register(work: dict[str, str]) -> Path:
    """Say on disk what this process works on, so that somebody can clear up after its death.

    Returns:
        The file to delete when the work has ended in order.
    """
    owner = Owner.current()
    path = REGISTER / f"{hashlib.sha256(str(owner).encode()).hexdigest()[:16]}.json"
    content = {"owner": str(owner), "work": work}
    write_whole(path, json.dumps(content).encode())
    return path


def left_behind() -> Iterator[tuple[Path, dict[str, str]]]:
    """What processes of this machine worked on when they died: the file that says so, the work."""
    for path in sorted(REGISTER.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # another was faster
            content = json.loads(path.read_bytes())
            if Owner.from_text(content["owner"]).is_dead:
                yield path, content["work"]


def _started(pid: int) -> str:
    """When a process began; "" where there is none."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        # The name in parentheses may hold spaces; the state and the start time come after it.
        state, *rest = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


@functools.cache
def _boot() -> str:
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    found = subprocess.run(
        ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


@functools.cache
def _machine() -> str:
    identity = Path("/etc/machine-id")
    known = identity.read_text() if identity.is_file() else ""
    node = uuid.getnode()
    if node >> 40 & 1:  # no network card has this bit: Python has drawn a number for this process
        node = 0
    namespace = os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else ""
    identity_of_all = f"harness {known} {node} {platform.node()} {namespace}"
    return hashlib.sha256(identity_of_all.encode()).hexdigest()[:16]
