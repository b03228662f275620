"""How many processors this process may use."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts the control groups."""


def processors(groups: Path = Path("/proc/self/cgroup"), tree: Path = CONTROL_GROUPS) -> int:
    """How many processors this process may use at a time, at least one.

    Its affinity bounds them, and on Linux the quota of its control group (`docker --cpus 2`), of
    version 1 or 2: see "CPU Interface Files" in the kernel's documentation of control groups.

    Args:
        groups: the file that names the groups of this process.
        tree: where they are mounted.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = count or 1
    quotas = [count, *_quotas(groups, tree)] if sys.platform == "linux" else [count]
    return max(1, math.floor(min(quotas)))


def _quotas(groups: Path, tree: Path) -> Iterator[float]:
    """The quotas, in processors, of a process's group and of those around it."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = [tree / controllers, tree / "cpu"] if controllers else [tree, tree / "unified"]
        for root in roots:
            # In a container the path is that of the host; the mount holds the own group only.
            inner = root / path.lstrip("/")
            around = [inner, *inner.parents]
            for group in around[: around.index(root) + 1]:
                with contextlib.suppress(OSError, ValueError):
                    if controllers:
                        quota = (group / "cpu.cfs_quota_us").read_text()
                        period = (group / "cpu.cfs_period_us").read_text()
                    else:
                        quota, period = (group / "cpu.max").read_text().split()
                    if float(quota) > 0:  # -1 means no quota; so does "max", a ValueError
                        yield float(quota) / float(period)
