"""Training needs torch, NumPy and what torch brings along, and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.processes

PROGRAM = """
import importlib, sys
from importlib.metadata import packages_distributions

STARTED_WITH = {name.partition(".")[0] for name in sys.modules}
ALLOWED = set(sys.argv[1].split())
REFUSED = {
    package for package, owners in packages_distributions().items()
    if not {owner.lower().replace("_", "-") for owner in owners} & ALLOWED
} - {"harness", "experiments", "studies"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusal())
for name in sys.argv[2:]:
    importlib.import_module(name)
imported = {name.partition(".")[0] for name in sys.modules} - STARTED_WITH
print(*sorted(REFUSED & imported))
"""


def normalized(name: str) -> str:
    return name.lower().replace("_", "-")


def with_requirements(*names: str) -> set[str]:
    """Distributions and what they require without extras, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normalized(waiting.pop())
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            for requirement in required:
                if "extra ==" not in requirement:
                    match = re.match(r"[\w.-]+", requirement)
                    assert match
                    waiting.append(match[0])
    return found


def import_with(allowed: set[str], *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, " ".join(allowed), *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
def test_training_imports_torch_numpy_and_what_torch_brings_along() -> None:
    allowed = with_requirements("torch", "numpy")
    assert {"torch", "numpy", "filelock"} <= allowed
    assert not {"psutil", "mlflow", "optuna", "tyro", "torchvision", "pandas"} & allowed
    modules = sorted(
        f"harness.training.{path.stem}"
        for path in (ROOT / "harness" / "training").glob("*.py")
        if path.stem != "__init__"
    )
    assert len(modules) > 5
    ended = import_with(allowed, *modules)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


@pytest.mark.processes
def test_another_import_would_be_found() -> None:
    ended = import_with(with_requirements("torch", "numpy"), "harness.base.machine")
    assert ended.returncode == 1
    assert "No module named 'psutil'" in ended.stderr
