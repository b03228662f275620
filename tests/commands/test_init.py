"""A project of one's own: made, run from any of its folders, with the package installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from harness.tracking.reader import DatabaseReader

OWN = '''"""Three hidden units."""

from torch import nn

from harness import Experiment
from own_layers import hidden


class Own(Experiment):
    def network(self):
        return nn.Sequential(nn.Flatten(), hidden(), nn.Linear(3, 10))
'''

OWN_STUDY = '''"""A study of it."""

from experiments.own import Own
from harness import FloatDistribution, Study

study = Study(
    experiment=Own(dataset="digits", num_epochs=1),
    space={"lr": FloatDistribution(0.01, 1.0)},
    n_trials=2,
)
'''

QUICK = ("--dataset", "digits", "--num-epochs", "1", "--threads", "1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip builds and installs it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("harness", "experiments", "studies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    target = folder / "installed"
    words = ("--no-deps", "--no-index", "--no-build-isolation", "--target", str(target))
    built = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return target


def call(
    installed: Path, folder: Path, /, *words: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    foreign = ("MLFLOW_", "HARNESS_", "PYTHON")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(installed)} | changes,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_holds_the_package_alone(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"harness", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["harness"]
    parts = {
        path.relative_to(ROOT / "harness")
        for path in (ROOT / "harness").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {
        path.relative_to(installed / "harness")
        for path in (installed / "harness").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there == parts
    assert {Path("py.typed"), Path("reporting/page.html"), Path("templates/study.txt")} <= there


def test_the_templates_are_the_shipped_files() -> None:
    templates = ROOT / "harness" / "templates"
    for template, path in (
        ("experiment.txt", "experiments/baseline.py"),
        ("study.txt", "studies/lr_search.py"),
    ):
        assert (templates / template).read_text() == (ROOT / path).read_text(), f"copy {path}"


def files_of(installed: Path) -> dict[Path, int]:
    """Everything in the package but what Python compiles, with its time."""
    files = [path for path in installed.rglob("*") if "__pycache__" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def test_a_project_is_made_and_used(installed: Path, tmp_path: Path) -> None:
    package = files_of(installed)
    console = str(installed / "bin" / "harness")
    outside = call(installed, tmp_path, "-m", "harness.run", "baseline")
    assert (outside.returncode, outside.stdout) == (2, "")
    assert outside.stderr.endswith("Make one: python -m harness init\n")
    listed = call(installed, tmp_path, "-m", "harness")
    assert (listed.returncode, "init" in listed.stdout) == (2, True)
    declared = call(installed, tmp_path, "-c", "from harness import Experiment, Study, Metric")
    assert declared.returncode == 0, declared.stderr

    made = call(installed, tmp_path, "-m", "harness", "init", "my project")
    assert made.returncode == 0, made.stderr
    project = tmp_path / "my project"
    assert "  made  experiments/baseline.py\n" in made.stdout
    assert "cd 'my project'" in made.stdout
    (project / "experiments" / "own.py").write_text(OWN)
    (project / "own_layers.py").write_text(
        "from torch import nn\n\n\ndef hidden():\n    return nn.Linear(784, 3)\n"
    )
    (project / "studies" / "own_search.py").write_text(OWN_STUDY)
    (project / "README.md").write_text("my own words")
    again = call(installed, project, "-m", "harness.init")
    assert "  kept  README.md\n" in again.stdout
    assert (project / "README.md").read_text() == "my own words"

    # From a subfolder, by module and by the console command.
    ran = call(installed, project / "studies", "-m", "harness.run", "own", *QUICK)
    assert ran.returncode == 0, ran.stderr
    ran = call(installed, project, console, "run", "baseline", *QUICK, "--no-figures")
    assert ran.returncode == 0, ran.stderr
    # Somewhere on the path is a package of the same name; and workers are not forked.
    other = tmp_path / "other"
    (other / "experiments").mkdir(parents=True)
    (other / "experiments" / "__init__.py").touch()
    (other / "sitecustomize.py").write_text("import os\n\ndel os.fork\n")
    with_others = {"PYTHONPATH": f"{other}{os.pathsep}{installed}"}
    studied = call(
        *(installed, project / "experiments", console, "study", "own_search"),
        *("--threads", "1", "--workers", "2", "--confirm-seeds", "1"),
        **with_others,
    )
    assert studied.returncode == 0, studied.stderr
    reader = DatabaseReader(project / "mlruns" / "mlflow.db")
    runs = reader.runs()
    assert {run.outcome for run in runs} == {"completed"}
    assert sorted({run.kind for run in runs}) == ["confirm", "run", "study", "trial"]
    (baseline,) = (run for run in runs if run.experiment == "baseline")
    assert baseline.command.startswith("python -m harness.run baseline --dataset digits")
    # A relative name of the project holds for the processes that are started in the project, too.
    elsewhere = call(
        *(installed, other, "-m", "harness.verify", baseline.run_id),
        HARNESS_PROJECT="../my project",
        **with_others,
    )
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"my project", "other"}
    assert not (other / "mlruns").exists()
    assert files_of(installed) == package


@pytest.mark.parametrize("words", [("a", "b"), ("--force",), ("",)])
def test_one_folder_is_made_a_project(installed: Path, tmp_path: Path, words: tuple[str]) -> None:
    ended = call(installed, tmp_path, "-m", "harness.init", *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: init: expected one folder")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "studies").write_text("")
    ended = call(installed, tmp_path, "-m", "harness.init", "own")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: init: own cannot be made a project: own/studies: ")
    assert len(ended.stderr.splitlines()) == 1
