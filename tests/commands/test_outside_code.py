"""Experiments that are in no file of the project: their code is recorded, and run only if asked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GIT, Checkout, Ended

from harness.tracking.reader import DatabaseReader
from harness.tracking.schema import StoredRun

CLASS = """\
import torch
from torch import nn
import harness
from harness import Experiment

WIDTH = 12


class Cell(Experiment):
    depth: int = 1

    def network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH), nn.ReLU(), last())


def last():
    return nn.Linear(WIDTH, 10)

"""

TRAINED = """
result = harness.run_experiment(
    Cell(dataset="digits", num_epochs=2, batch_size=BATCH), threads=1, figures=False
)
print("trained", result.metrics["test/accuracy"])
"""

SCRIPT = CLASS + TRAINED.replace("BATCH", "64") + TRAINED.replace("BATCH", "32")
"""Two trainings: the second one is meant."""

FLAG = "--run-recorded-code"


def python(checkout: Checkout, *words: str, **options: object) -> Ended:
    """What Python does in the project, as somebody types it."""
    ended = subprocess.run(
        [sys.executable, *words],
        **{"cwd": checkout.root, "stdin": subprocess.DEVNULL, **options},  # type: ignore[call-overload]
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr, 0.0)


def committed(checkout: Checkout) -> None:
    if GIT:
        checkout.git("init", "--quiet")
        checkout.git("add", "--all")
        checkout.git("commit", "--quiet", "--message", "All of it")


def only_run(checkout: Checkout, **fields: object) -> StoredRun:
    (run,) = (
        run
        for run in DatabaseReader(checkout.store).runs()
        if run.kind == "run" and run.fields.items() >= fields.items()
    )
    return run


def source(checkout: Checkout, run: StoredRun) -> bytes | None:
    found = list(checkout.root.glob(f"mlruns/artifacts/*/{run.run_id}/artifacts/source.py"))
    return found[0].read_bytes() if found else None


def check_record(checkout: Checkout, run: StoredRun, origin: str, content: str) -> None:
    """The source is recorded, its digest too, and nothing calls it clean or names a place."""
    assert source(checkout, run) == content.encode()
    assert run.tag("source_sha256") == hashlib.sha256(content.encode()).hexdigest()
    assert run.tag("git_state") == "outside"
    assert run.tag("code_origin") == origin
    assert run.commit == f"{(run.tag('git_commit') or '')[:8]} and {origin}"
    told = json.dumps({**run.tags, "name": run.name})
    assert str(checkout.root.parent) not in told
    assert "ipykernel" not in told


def check_verified(checkout: Checkout, run: StoredRun, origin: str) -> None:
    """Without the flag a line says what is the matter; with it, the numbers are the same."""
    refused = checkout.command("harness.verify", run.run_id)
    assert (refused.status, refused.output) == (2, "")
    assert refused.errors == (
        f"error: verify: cell is in no file of the project but in {origin}. "
        f"To execute the code that was recorded with the run: {FLAG}\n"
    )
    before = len(DatabaseReader(checkout.store).runs())
    verified = checkout.command("harness.verify", run.run_id, FLAG, "--quiet")
    assert (verified.status, verified.errors) == (0, ""), verified
    assert "identical: all" in verified.output
    assert "final weights included" in verified.output
    assert "  commit, files, data, device, threads, versions and precision are equal" in (
        verified.output
    )
    assert len(DatabaseReader(checkout.store).runs()) == before + 1, "nothing else was trained"


@pytest.mark.skipif(not GIT, reason="no git")
def test_a_script_elsewhere_is_recorded_and_repeated(checkout: Checkout, tmp_path: Path) -> None:
    committed(checkout)
    script = tmp_path / "elsewhere" / "train it.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    ended = python(checkout, str(script), "--some", "words")
    assert (ended.status, ended.errors) == (0, ""), ended
    assert (
        "code: the experiment is in no file of the project but in train it.py, "
        "recorded as source.py" in ended.output
    )
    run = only_run(checkout, batch_size=32)
    check_record(checkout, run, "train it.py", SCRIPT)
    assert run.tag("project_state") == "clean"
    assert run.command == "python 'train it.py' --some words"
    assert f"python -m harness.verify {run.run_id} {FLAG}" in run.tags["mlflow.note.content"]
    script.unlink()
    check_verified(checkout, run, "train it.py")

    shown = checkout.command("harness.compare", "--experiment", "cell", "--columns", "commit")
    assert f"{run.commit}" in shown.output
    written = tmp_path / "r.html"
    assert checkout.command("harness.report", "cell", "--out", str(written)).status == 0
    page = written.read_text()
    assert "in no file of the project but in train it.py (source.py among the artifacts" in page
    assert f"python -m harness.verify {run.run_id} {FLAG}" in page
    refused = checkout.run("--continue", run.run_id, "--num-epochs", "3")
    assert refused.errors.startswith("error: continue: cell is in no file of the project but in")
    longer = checkout.run("--continue", run.run_id, "--num-epochs", "3", FLAG)
    assert (longer.status, longer.errors) == (0, ""), longer
    check_record(checkout, only_run(checkout, num_epochs=3), "train it.py", SCRIPT)


@pytest.mark.skipif(not GIT, reason="no git")
@pytest.mark.parametrize(
    "words", [["-c", SCRIPT, "-c"], [f"-Bc{SCRIPT}"], ["-X", "dev", "-c", SCRIPT]]
)
def test_a_command_line_is_recorded_and_repeated(checkout: Checkout, words: list[str]) -> None:
    committed(checkout)
    ended = python(checkout, *words)
    assert ended.status == 0, ended
    run = only_run(checkout, batch_size=32)
    check_record(checkout, run, "python -c", SCRIPT)
    if words[0] == "-c":
        check_verified(checkout, run, "python -c")


@pytest.mark.skipif(not GIT, reason="no git")
def test_standard_input_is_recorded_if_it_is_a_file(checkout: Checkout, tmp_path: Path) -> None:
    committed(checkout)
    (tmp_path / "script.txt").write_text(SCRIPT)
    with (tmp_path / "script.txt").open() as file:
        assert python(checkout, "-", stdin=file).status == 0
    run = only_run(checkout, batch_size=32)
    check_record(checkout, run, "standard input", SCRIPT)
    assert run.command == ""
    check_verified(checkout, run, "standard input")


def test_what_came_through_a_pipe_is_not_there_any_more(checkout: Checkout) -> None:
    ended = python(checkout, "-", stdin=None, input=SCRIPT)
    assert ended.status == 0, ended
    missing = "what was executed cannot be read again"
    assert f"but in standard input, not recorded: {missing}" in ended.output
    run = only_run(checkout, batch_size=32)
    assert source(checkout, run) is None
    assert run.tag("git_state") == "outside"
    refused = checkout.command("harness.verify", run.run_id, FLAG)
    assert (refused.status, refused.output) == (2, "")
    assert refused.errors == (
        "error: verify: cell is in no file of the project but in standard input, and its code was "
        f"not recorded: {missing}.\n"
    )


CELLS = f"""
import linecache

def execute(number, text):
    name = f"/tmp/ipykernel_{{4711}}/{{number}}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), globals())

imports, _, body = {CLASS!r}.partition("WIDTH = 12")
execute(101, imports + "print('a cell')\\n")
execute(102, "WIDTH = 12" + body.replace("ReLU", "Tanh"))   # it is changed, and changed back:
execute(103, "WIDTH = 12" + body)
for number, batch in ((105, "64"), (106, "32")):
    execute(number, {TRAINED!r}.replace("BATCH", batch))
execute(102, "WIDTH = 12" + body.replace("ReLU", "Tanh"))
execute(107, {TRAINED!r}.replace("BATCH", "16"))
"""


@pytest.mark.skipif(not GIT, reason="no git")
def test_the_cells_of_a_notebook_are_recorded_and_repeated(checkout: Checkout) -> None:
    committed(checkout)
    launcher = "import sys, runpy; sys.argv = ['ipykernel_launcher.py', '-f', '/private/k.json']\n"
    ended = python(checkout, "-c", launcher + CELLS)
    assert ended.status == 0, ended
    for batch, function in ((32, "ReLU"), (16, "Tanh")):
        run = only_run(checkout, batch_size=batch)
        content = (source(checkout, run) or b"").decode()
        check_record(checkout, run, "a notebook", content)
        assert run.command == ""
        assert content.startswith("import torch\n")
        assert function in content[content.rindex("class Cell") :], "the latest execution is last"
        check_verified(checkout, run, "a notebook")
    seeds = {only_run(checkout, batch_size=batch).tag("experiment_sha256") for batch in (64, 32)}
    assert len(seeds) == 1, "another cell that was executed meanwhile makes it no other experiment"


def test_a_notebook_is_named_without_its_folder(checkout: Checkout) -> None:
    environment = checkout.environment(JPY_SESSION_NAME="/home/ann/private/study.ipynb")
    subprocess.run(
        [sys.executable, "-c", CELLS],
        cwd=checkout.root,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )
    run = only_run(checkout, batch_size=16)
    assert run.tag("code_origin") == "notebook study.ipynb"
    assert "private" not in json.dumps(run.tags)


def test_a_source_with_a_key_is_not_recorded(checkout: Checkout, tmp_path: Path) -> None:
    script = tmp_path / "keys.py"
    script.write_text(f'API_KEY = "{"k3y" * 9}"\n{SCRIPT}')
    ended = python(checkout, str(script))
    assert ended.status == 0, ended
    assert "but in keys.py, not recorded: it looks as if it held" in ended.output
    run = only_run(checkout, batch_size=32)
    assert source(checkout, run) is None
    assert run.tag("source_sha256") == hashlib.sha256(script.read_bytes()).hexdigest()
    refused = checkout.command("harness.verify", run.run_id, FLAG)
    assert refused.status == 2
    assert "its code was not recorded: it looks as if it held" in refused.errors
    everything = b"".join(p.read_bytes() for p in checkout.root.rglob("mlruns/**/*") if p.is_file())
    assert b"k3yk3y" not in everything


def test_recorded_code_is_executed_only_if_it_is_asked_for_and_whole(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "evil.py"
    trap = checkout.root / "it was executed"
    script.write_text(f"open({str(trap)!r}, 'w')\n{SCRIPT}")
    assert python(checkout, str(script)).status == 0
    run = only_run(checkout, batch_size=32)
    trap.unlink()
    for words in (
        ("harness.verify", run.run_id),
        ("harness.run", "--continue", run.run_id, "--num-epochs", "4"),
        ("harness.compare", "--experiment", "cell"),
        ("harness.report", "cell", "--out", "r.html"),
    ):
        checkout.command(*words)
        assert not trap.exists(), words
    (file,) = checkout.root.glob(f"mlruns/artifacts/*/{run.run_id}/artifacts/source.py")
    file.write_text(file.read_text() + "# changed\n")
    refused = checkout.command("harness.verify", run.run_id, FLAG)
    assert refused.status == 2
    assert refused.errors == (
        f"error: verify: source.py of {run.run_id} has another digest than was recorded; it is not "
        "executed.\n"
    )
    file.unlink()
    refused = checkout.command("harness.verify", run.run_id, FLAG)
    assert "the record of its code, source.py, is not there." in refused.errors
    assert not trap.exists()


def test_code_that_needs_what_is_not_there_says_so_in_a_line(
    checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text("from harness import Experiment as Base\n")
    script = tmp_path / "needs.py"
    script.write_text("import beside\n" + SCRIPT.replace("(Experiment)", "(beside.Base)"))
    assert python(checkout, str(script)).status == 0
    run = only_run(checkout, batch_size=32)
    refused = checkout.command("harness.verify", run.run_id, FLAG)
    assert refused.status == 2
    assert re.fullmatch(
        r"error: verify: the recorded code of \w{8} defines no experiment cell: "
        r"ModuleNotFoundError: No module named 'beside' \(line 1\)\n",
        refused.errors,
    )


def test_a_class_like_a_file_of_the_project_is_not_taken_for_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "other.py"
    script.write_text(SCRIPT.replace("Cell", "Baseline"))
    assert python(checkout, str(script)).status == 0
    run = only_run(checkout, batch_size=32)
    refused = checkout.command("harness.verify", run.run_id)
    assert "verify: baseline is in no file of the project but in other.py" in refused.errors


def test_a_script_of_the_project_is_named_by_its_path_and_the_commit_has_it(
    checkout: Checkout,
) -> None:
    script = checkout.root / "scripts" / "train.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    committed(checkout)
    assert python(checkout, str(script)).status == 0
    run = only_run(checkout, batch_size=32)
    assert run.tag("code_origin") == "scripts/train.py"
    assert run.tag("git_state") == ("clean" if GIT else "unknown")
    refused = checkout.command("harness.verify", run.run_id)
    assert "cell is in no file of experiments/ but in scripts/train.py" in refused.errors
    verified = checkout.command("harness.verify", run.run_id, FLAG, "--quiet")
    assert "identical: all" in verified.output, verified


def test_an_interrupted_run_of_a_script_goes_on_with_the_flag(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "stops.py"
    stopping = """
    def observe(self, training):
        import os
        if len(training.history) == 2 and not os.environ.get("GO_ON"):
            raise ValueError("stopped here")
        return {}
"""
    text = SCRIPT.replace("    def network", f"{stopping}\n    def network", 1)
    script.write_text(text.replace("num_epochs=2", "num_epochs=3"))
    ended = python(checkout, str(script))
    assert ended.status == 1
    run = only_run(checkout, batch_size=64)
    command = f"python -m harness.run --resume {run.run_id} {FLAG}"
    assert command in ended.errors
    refused = checkout.run("--resume", run.run_id)
    assert refused.errors.startswith("error: resume: cell is in no file of the project but in")
    resumed = checkout.run("--resume", run.run_id, FLAG, changes={"GO_ON": "yes"})
    assert (resumed.status, resumed.errors) == (0, ""), resumed
    assert only_run(checkout, batch_size=64).outcome == "completed"


def test_a_study_of_a_script_keeps_its_source_and_each_trial_is_repeated(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "search.py"
    script.write_text(
        CLASS
        + """
from harness import FloatDistribution, Study
cell = Cell(dataset="digits", num_epochs=1)
study = Study(experiment=cell, space={"lr": FloatDistribution(0.01, 1)})
answer = harness.run_study(study, study_name="cells", n_trials=2, workers=1, confirm_seeds=1)
"""
    )
    ended = python(checkout, str(script))
    assert ended.status == 0, ended
    assert "in no file of the project but in search.py, recorded as source.py" in ended.output
    runs = DatabaseReader(checkout.store).runs("cells")
    for kind in ("trial", "confirm"):
        run = next(run for run in runs if run.kind == kind)
        assert run.tag("git_state") == "outside"
        assert f"harness.verify {run.run_id} {FLAG}" in run.tags["mlflow.note.content"]
        verified = checkout.command("harness.verify", run.run_id, FLAG, "--quiet")
        assert "identical: all" in verified.output, verified
    assert checkout.command("harness.report", "cells", "--out", "r.html").status == 0
    page = (checkout.root / "r.html").read_text()
    confirmed = {run.run_id for run in runs if run.kind == "confirm"}
    assert any(f"python -m harness.verify {run_id} {FLAG}" in page for run_id in confirmed)
    assert "harness.run cell" not in page


def test_a_script_that_was_edited_meanwhile_is_not_what_was_executed(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "edited.py"
    editing = "from pathlib import Path\nPath(__file__).write_text({!r})\n"
    script.write_text(editing.format(SCRIPT.replace("784, WIDTH", "784, 1 + WIDTH")) + SCRIPT)
    ended = python(checkout, str(script))
    assert ended.status == 0, ended
    run = only_run(checkout, batch_size=32)
    assert source(checkout, run) is None
    assert run.tag("code_missing") == "what was executed cannot be read again"
    assert run.tag("code_origin") == "edited.py"


def test_a_class_without_functions_in_another_encoding_is_repeated(
    checkout: Checkout, tmp_path: Path
) -> None:
    script = tmp_path / "latin.py"
    text = """# -*- coding: latin-1 -*-
# Größe
from experiments.baseline import Baseline
from harness import run_experiment
class Wide(Baseline):
    hidden_width: int = 32
for seed in range(2):
    run_experiment(Wide(dataset="digits", num_epochs=1, seed=seed), threads=1, figures=False)
"""
    script.write_bytes(text.encode("latin-1"))
    assert python(checkout, str(script)).status == 0
    run = only_run(checkout, seed=1)
    assert source(checkout, run) == text.encode("latin-1")
    assert run.parameters["hidden_width"] == 32
    verified = checkout.command("harness.verify", run.run_id, FLAG, "--quiet")
    assert "identical: all" in verified.output, verified
