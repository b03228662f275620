"""The README's commands run, its links lead somewhere, its examples work."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/log.md"]
PYTHON_COMMANDS = [
    command
    for command in re.findall(r"^    (python -m harness[^#\n]*?) *(?:#.*)?$", README, re.MULTILINE)
    # These need an earlier run, or a folder: test_resume.py, test_training_length.py,
    # test_from_python.py, test_init.py.
    if not {"--resume", "--continue", "--start-from", "init"} & set(command.split())
]
NOTEBOOK = "import harness\n"
PYTHON_BLOCKS, NOTEBOOK_BLOCKS = (
    [
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if block.startswith(NOTEBOOK) == for_notebooks
    ]
    for for_notebooks in (False, True)
)

# What a command of the README is shortened by, so that it ends within seconds here. A command that
# sets the same itself keeps its own.
QUICK = {
    "run": {"--dataset": "digits", "--num-epochs": "2"},
    "study": {
        "--dataset": "digits",
        "--num-epochs": "2",
        "--n-trials": "2",
        "--confirm-seeds": "2",
        "--study-name": "from the README",
    },
}


def test_the_readme_has_commands_and_examples() -> None:
    assert len(PYTHON_COMMANDS) > 8
    assert len(PYTHON_BLOCKS) == 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("command", PYTHON_COMMANDS)
def test_every_command_of_the_readme_runs(command: str, store: Path, tmp_path: Path) -> None:
    _, _, module, *words = shlex.split(command)
    command_name = module.removeprefix("harness").removeprefix(".")
    if command_name in (
        "ui",
        "bench",
        "compare",
        "report",
    ):  # there may be no run yet, or different data
        words = ["--help"]
    elif words and "--help" not in words:
        name, *rest = words
        given = dict(itertools.pairwise(rest))
        if command_name == "study":
            rest += ["--storage", f"sqlite:///{tmp_path}/optuna.db"]
        for flag, value in QUICK[command_name].items():
            if flag not in given:
                rest += [flag, value]
        smaller = {**QUICK[command_name], "--validation-size": "100"}
        for flag in given.keys() & smaller.keys():
            rest[rest.index(flag) + 1] = smaller[flag]
        words = [name, *rest]
    finished = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # A network may need more than the few updates that it gets here.
    has_learned = "collapsed after" not in finished.stdout
    assert finished.returncode == (0 if has_learned else 1), finished.stderr
    assert finished.stdout.strip()


def test_the_example_files_work(tmp_path: Path) -> None:
    name, checkout = "batch_norm_mlp", tmp_path / "checkout"
    checkout.mkdir()
    for folder in ("harness", "experiments", "studies"):
        (checkout / folder).mkdir()
        for path in (ROOT / folder).rglob("*.py"):
            target = checkout / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (checkout / "experiments" / f"{name}.py").write_text(PYTHON_BLOCKS[0])
    (checkout / "experiments" / "confident_regression.py").write_text(PYTHON_BLOCKS[2])
    (checkout / "experiments" / "spirals.py").write_text(PYTHON_BLOCKS[1])
    (checkout / "studies" / "example_search.py").write_text(PYTHON_BLOCKS[3])
    quickly = ["--dataset", "digits", "--num-epochs", "1"]

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    finished = command("harness.run", name, *quickly, "--hidden-width", "16")
    assert finished.returncode == 0, finished.stderr
    assert "batch_norm_mlp dataset=digits num_epochs=1 hidden_width=16" in finished.stdout
    measured = command("harness.run", "confident_regression", *quickly)
    assert " confidence 0." in measured.stdout, measured.stderr
    assert " weight_norm " in measured.stdout
    own_data = command("harness.run", "spirals", "--lr", "1")
    assert "test accuracy 0." in own_data.stdout, own_data.stderr
    listed = command("harness.study", "example_search", *quickly, "--dry-run")
    assert "0.001 to 1.0, logarithmic" in listed.stdout, listed.stderr


def keeping_values(block: str) -> str:
    """The code, where the value of each expression that a notebook would show is appended."""
    tree = ast.parse(block)
    for statement in tree.body:
        if isinstance(statement, ast.Expr):
            keep = ast.parse("shown.append", mode="eval").body
            statement.value = ast.Call(keep, [statement.value], [])
    return ast.unparse(tree)


OTHERS = """
import mlflow
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("baseline")
other = client.create_run(experiment.experiment_id, tags={"harness.kind": "run"})
client.log_param(other.info.run_id, "dataset", "mnist")
client.log_metric(other.info.run_id, "test/accuracy", 0.5, step=1)
client.set_terminated(other.info.run_id)
"""
"""What else a store may hold: a run on other data. A group of seeds is made by the command."""

RESULTS = """
accuracy, network, run_study, table, losses = shown
assert 0 < accuracy < 1
assert sum(p.numel() for p in network.parameters()) == 203530
assert list(table) == ["name", "seed", "device", "metrics.test/accuracy"]
assert sorted(table["seed"]) == [0, 0, 1], table
assert accuracy in list(table["metrics.test/accuracy"])
assert list(losses.index) == [1, 2]
assert losses.shape == (2, 3), losses
assert losses.columns.name == "run_id"
assert losses.notna().all().all()
assert set(losses.columns) == set(runs["run_id"])
"""


def test_the_notebook_examples_show_what_they_promise(tmp_path: Path) -> None:
    environment = os.environ | {
        **{"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "MPLBACKEND": "agg"}
    }
    quick = ("--dataset", "digits", "--num-epochs", "2", "--no-figures")
    first, second = map(keeping_values, NOTEBOOK_BLOCKS)
    # Fields of an experiment that takes no time; the rest stands as it is in the README.
    first = first.replace("Baseline(", "Baseline(dataset='digits', num_epochs=2, ")
    second = second.replace("fashion-mnist", "digits")
    # Thirty trials; test_from_python.py runs studies.
    first = first.replace("harness.run_study('lr_search')", "harness.run_study")
    program = f"shown = []\n{first}\n{OTHERS}\n{second}\n{RESULTS}"
    for words in (
        ("-m", "harness.run", "baseline", *quick, "--repeats", "2"),
        ("-c", program),
    ):
        finished = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or ((ROOT / document).parent / target).exists(), target


def test_the_annotated_tree_names_what_there_is() -> None:
    tree = README.partition("## Where everything is")[2]
    assert "mlruns/" in tree
    for name in re.findall(r"\b(\w+\.py)\b", tree):
        assert (ROOT / "harness" / name).is_file(), name
    for folder in re.findall(r"^    (\w+)/", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
