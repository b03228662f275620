"""Which process works on a run or trial, and whether it is still alive. Anonymous: no names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base import project
from harness.base.files import write_whole
from harness.base.machine import boot_id, machine_digest, process_start
from harness.base.processes import is_running


def register_folder() -> Path:
    """One file for each work of a process, which deletes it when the work has ended in order."""
    return project.mlruns() / "processes"


@dataclass(frozen=True)
class Owner:
    """One process of one boot of one machine.

    Attributes:
        started: When the process began, as `process_start` counts: process ids are reused.
        boot: The boot that the process id belongs to.
        machine: A digest that tells machines (and containers, which count process ids on their
            own) apart and does not reveal which they are.
    """

    pid: int
    started: str
    boot: str
    machine: str

    @classmethod
    def current(cls) -> Owner:
        """Return the owner that this process is."""
        return cls(os.getpid(), str(process_start(os.getpid())), boot_id(), machine_digest())

    @classmethod
    def from_text(cls, text: str) -> Owner | None:
        """Read what `str` wrote; None if the text is anything else."""
        try:
            owner = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        words = (owner.started, owner.boot, owner.machine)
        is_owner = type(owner.pid) is int and all(isinstance(word, str) for word in words)
        return owner if is_owner else None

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if the process is alive."""
        return self.machine == machine_digest()

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended. False for another machine's process."""
        if not self.is_here:
            return False
        return self.boot != boot_id() or not is_running(self.pid, self.started)


def is_owner_dead(text: str) -> bool:
    """Return whether the owner in a text is known to have ended; False if it cannot be read."""
    owner = Owner.from_text(text)
    return owner is not None and owner.is_dead


def register(work: dict[str, str]) -> Path:
    """Note on disk what this process works on, so that others can recover it after its death.

    Returns:
        The file to delete once the work has ended in order. Each work has a file of its own.
    """
    content = json.dumps({"owner": str(Owner.current()), "work": work}).encode()
    path = register_folder() / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    write_whole(path, content)
    return path


def left_behind() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield what dead processes of this machine worked on: the file that says so, and the work."""
    for path in sorted(register_folder().glob("*.json")):
        # Another process may have deleted the file, or it may hold anything.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_bytes())
            if is_owner_dead(content["owner"]):
                yield path, content["work"]
