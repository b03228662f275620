"""Which process works on a run or trial, and whether it is still alive. Anonymous: no names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base import project
from harness.base.errors import RunFailed
from harness.base.files import write_whole
from harness.base.machine import boot_id, machine_digest, process_namespace, process_start
from harness.base.processes import is_running


def register_folder() -> Path:
    """One file for each work of a process, which deletes it when the work has ended in order."""
    return project.mlruns() / "processes"


DEAD_AFTER_SECONDS = 120.0
"""How long a process of an earlier boot must have been silent to count as dead."""

HEARTBEAT_SECONDS = 30.0
"""How often it is written down that a run is alive."""


@dataclass(frozen=True)
class Owner:
    """One process of one boot of one machine.

    Attributes:
        started: When the process began, as `process_start` counts: process ids are reused.
        boot: The boot that the process id belongs to.
        namespace: The container that counts the process id.
        machine: A digest that does not reveal which machine it is; empty if machines cannot be told
            apart. Virtual machines and containers that were made from one image may share it.
    """

    pid: int
    started: str
    boot: str
    namespace: str
    machine: str

    @classmethod
    def current(cls) -> Owner:
        """Return the owner that this process is."""
        started = str(process_start(os.getpid()))
        return cls(os.getpid(), started, boot_id(), process_namespace(), machine_digest())

    @classmethod
    def from_text(cls, text: str) -> Owner | None:
        """Read what `str` wrote; None if the text is anything else."""
        try:
            owner = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        words = (owner.started, owner.boot, owner.namespace, owner.machine)
        is_owner = type(owner.pid) is int and all(isinstance(word, str) for word in words)
        return owner if is_owner else None

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether this process can see the other one while it is alive.

        Neither the host's name nor its network counts: a laptop changes them from place to place.
        """
        if (self.boot, self.namespace) != (boot_id(), process_namespace()):
            return False
        return bool(self.boot) or self._is_of_this_machine

    @property
    def _is_of_this_machine(self) -> bool:
        return bool(self.machine) and self.machine == machine_digest()

    def is_dead(self, last_seen: float) -> bool:
        """Whether the process is known to have ended. False where that cannot be known.

        Args:
            last_seen: When it was last known to be alive, in seconds since 1970. It decides only
                about a process of an earlier boot: two live machines may have one image's identity.
        """
        if self.is_here:
            return not is_running(self.pid, self.started)
        is_of_earlier_boot = self._is_of_this_machine and self.boot not in ("", boot_id())
        return is_of_earlier_boot and time.time() - last_seen > DEAD_AFTER_SECONDS


def is_owner_dead(text: str, last_seen: float) -> bool:
    """Return whether the owner in a text is known to have ended; False if it cannot be read."""
    owner = Owner.from_text(text)
    return owner is not None and owner.is_dead(last_seen)


def register(work: dict[str, str]) -> Path:
    """Note on disk what this process works on, so that others can recover it after its death.

    Returns:
        The file to delete once the work has ended in order. Each work has a file of its own.

    Raises:
        RunFailed: It cannot be written.
    """
    content = json.dumps({"owner": str(Owner.current()), "work": work}).encode()
    path = register_folder() / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    try:
        write_whole(path, content)
    except OSError as error:
        raise RunFailed(f"{path.parent}: cannot be written ({error.strerror}).") from None
    return path


@dataclass(frozen=True)
class LeftBehind:
    """What a dead process of this machine worked on, and the file that says so."""

    path: Path
    owner: Owner
    work: dict[str, str]


def left_behind() -> Iterator[LeftBehind]:
    """Yield what dead processes of this machine worked on.

    Files that may not be deleted here are left to those who may.
    """
    if not os.access(register_folder(), os.W_OK):
        return
    for path in sorted(register_folder().glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
            owner, work = Owner.from_text(content["owner"]), dict(content["work"])
            last_seen = path.stat().st_mtime
        except FileNotFoundError:  # its process has ended in order meanwhile
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            owner, work = None, {}
        if owner is None or not all(isinstance(value, str) for value in work.values()):
            warnings.warn(
                f"skipped {path}: it does not say what a process works on. Delete it.", stacklevel=2
            )
        elif owner.is_dead(last_seen):
            yield LeftBehind(path, owner, work)
