"""Commands that the harness prints work when they are pasted where they were printed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUICK, Checkout, Ended

from harness.base.command_line import command_text, go_on

SLOW = '''"""Own data in a folder of the user's, and epochs that take a while."""
import time

import numpy
from torch import nn

from harness import Dataset, Experiment


class Slow(Experiment):
    """A line through points of a file."""

    def data(self, root):
        points = numpy.load(root / "points.npy")
        labels = (points[:, 0] > 0).astype(int)
        return Dataset.from_arrays("points", train=(points, labels), test=(points, labels))

    def observe(self, training):
        time.sleep(0.5)
        return {}

    def network(self):
        return nn.Linear(2, 2)
'''

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pasted into a POSIX shell")


def pasted(checkout: Checkout, text: str, folder: Path, **changes: str) -> Ended:
    """Run the commands in a text, as somebody who pastes them into a shell."""
    commands = re.findall(r"((?:\S+=\S+ )?python -m .*)$", text, re.MULTILINE)
    assert commands, text
    shell = subprocess.run(
        ["sh", "-e", "-c", "\n".join(commands)],
        cwd=folder,
        env=checkout.environment(**changes)
        | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(shell.returncode, shell.stdout, shell.stderr, 0)


@POSIX
def test_a_resume_finds_the_data_again(checkout: Checkout) -> None:
    import numpy

    (checkout.root / "experiments" / "slow.py").write_text(SLOW)
    folder = checkout.root / "some folder"
    (folder / "own data").mkdir(parents=True)
    numpy.save(folder / "own data" / "points.npy", numpy.random.default_rng(0).normal(size=(40, 2)))
    words = ("slow", "--num-epochs", "6", "--threads", "1", "--data-root", "own data")
    process = checkout.start(
        "harness.run", *words, cwd=folder, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    assert "epoch 1/6" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    ended = pasted(checkout, output, folder)
    assert ended.errors == ""
    assert "after 6 epochs" in ended.output  # of noise nothing can be learned


@POSIX
def test_a_deleted_experiment_is_restored(checkout: Checkout) -> None:
    words = ("softmax_regression", *QUICK, "--no-figures")
    assert checkout.run(*words).status == 0
    with checkout.opened() as client:
        found = client.get_experiment_by_name("softmax_regression")
        assert found
        client.delete_experiment(found.experiment_id)
    refused = checkout.run(*words)
    assert refused.status == 1
    assert "was deleted" in refused.errors
    restored = pasted(checkout, refused.errors, checkout.root)
    assert restored.status == 0, restored.errors
    assert checkout.run(*words).status == 0


@POSIX
def test_an_empty_project_says_what_works(checkout: Checkout) -> None:
    for words in (("harness.compare",), ("harness.report", "softmax_regression")):
        said = checkout.command(*words)
        text = (said.output + said.errors).replace("\nerror", "error")
        text = re.sub(r"(python -m harness.run \S+)(.*)", rf"\1\2 {' '.join(QUICK)}", text)
        assert pasted(checkout, text, checkout.root).status == 0, text


def test_a_password_becomes_a_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://ann:" + "secret@db.example/optuna"
    for given in (["--storage", url], [f"--storage={url}"]):
        command = ("python", "-m", "harness.study", "lr_search", *given)
        monkeypatch.delenv("HARNESS_STORAGE", raising=False)
        text = go_on(command)
        assert "secret" not in text
        assert "***" not in text
        assert "HARNESS_STORAGE must hold the URL" in text
        monkeypatch.setenv("HARNESS_STORAGE", url)
        assert go_on(command) == command_text(command, Path.cwd())
        assert "--storage env:HARNESS_STORAGE" in go_on(command).replace("=", " ")


@POSIX
def test_a_storage_is_read_from_the_environment(checkout: Checkout) -> None:
    words = ("harness.study", "lr_search", *QUICK, "--n-trials", "1", "--confirm-seeds", "0")
    unset = checkout.command(*words, "--storage", "env:OWN_STORAGE")
    assert unset.status == 2
    assert "storage: set OWN_STORAGE to the URL of the storage" in unset.errors
    folder = checkout.root / "some folder"
    folder.mkdir()
    ended = checkout.command(
        *(*words, "--storage", "env:OWN_STORAGE"),
        folder=folder,
        changes={"OWN_STORAGE": "sqlite:///own.db"},
    )
    assert ended.status == 0, ended.errors
    assert (folder / "own.db").is_file()
    shutil.rmtree(folder)
