"""A small slice of the soak: a run and a study, killed at random moments."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("kind", ["run", "study", "checkpoint", "deleted"])
def test_nothing_is_lost_where_processes_are_killed_at_random_moments(kind: str) -> None:
    soaked = subprocess.run(
        [
            *(sys.executable, str(ROOT / "tests" / "soak.py")),
            *("--rounds", "2", "--jobs", "1", "--only", kind),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert soaked.returncode == 0, soaked.stdout + soaked.stderr
    assert "rounds 2, " in soaked.stdout
    assert f"{kind} 2, " in soaked.stdout
