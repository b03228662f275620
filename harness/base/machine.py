"""What psutil does not tell about this machine and its processes.

A process and a later one with the same id differ by their start, which must not move when somebody
sets the clock. Linux counts it in ticks since the boot, so there the boot needs a name as well. On
Windows and macOS it is the time of day that the system wrote down at the start and never changes:
it differs from boot to boot by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import sys
import uuid
from pathlib import Path

import psutil

_FIRST_BOOT_TIME = psutil.boot_time()

START_TOLERANCE = 0.0 if sys.platform == "linux" else 2.0
"""Two starts of one process may differ by this much; psutil follows the clock in whole seconds."""


def process_start(pid: int) -> float | None:
    """Return when a process began; None if it has ended, also if it is a zombie.

    Raises:
        psutil.AccessDenied: The process exists, but this one may not ask.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        # The name in parentheses may hold spaces; the state and the start time come after it.
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else float(rest[18])
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        start = float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    if sys.platform == "darwin" and psutil.version_info >= (7, 1):
        # Since this version psutil shifts it by what the clock was set since psutil's import.
        start -= float(psutil.boot_time() - _FIRST_BOOT_TIME)
    return start


@functools.cache
def boot_id() -> str:
    """Return the name of this boot, on the systems where a start needs it."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@functools.cache
def process_namespace() -> str:
    """Return what names the process ids of this container, or of Linux outside of containers."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def peak_memory() -> int | None:
    """Return the most memory, in bytes, that this process has taken; None if it is unknown."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # getrusage would count the parent's memory too, if the parent started this one by vfork.
        for line in Path("/proc/self/status").read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource  # Windows has no such module
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def machine_digest() -> str:
    """Return a digest that tells machines apart and does not reveal which; empty if none can."""
    identity = _identity()
    return hashlib.sha256(f"harness {identity}".encode()).hexdigest()[:16] if identity else ""


def _identity() -> str:
    """Return what the operating system calls this machine.

    On Linux machine ids are copied with images, so that the network card belongs to it.
    """
    if sys.platform == "win32" and (guid := _machine_guid()):
        return guid
    if sys.platform == "darwin" and (known := _host_uuid()):
        return known
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""
    node = uuid.getnode()
    # No network card has this bit: Python made the number up.
    return "" if node >> 40 & 1 or not known else f"{known} {node}"


def _machine_guid() -> str:
    """Return the id that Windows gave this installation."""
    if sys.platform != "win32":
        return ""
    import winreg  # Windows alone has it

    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    try:
        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography", 0, access
        ) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return ""


def _host_uuid() -> str:
    """Return the id of this Mac's hardware."""
    identity = ctypes.create_string_buffer(16)
    no_wait = (ctypes.c_long * 2)()
    try:
        failed = ctypes.CDLL(None).gethostuuid(identity, no_wait)
    except (OSError, AttributeError):
        return ""
    return "" if failed else identity.raw.hex()
