"""How many processors a process may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.base.processors import processors


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/host/path\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "not a number"}, None),
        ("0::/\n", {}, None),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_a_containers_quota_bounds_the_processors(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    own = tmp_path / "own"
    own.write_text(groups)
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    unbounded = processors(tmp_path / "nothing", tmp_path)
    assert processors(own, tmp_path / "tree") == (expected or unbounded)
