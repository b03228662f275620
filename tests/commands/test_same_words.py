"""A failing experiment has the same words in a run, in a study and from Python."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import Checkout

FAILING = '''"""Fails as it is told."""

from torch import nn

from harness import Experiment


class Failing(Experiment):
    rate: float = 0.5

    def network(self):
        raise {error}
'''

STUDY = '''"""A study of it."""

from experiments.failing import Failing
from harness import FloatDistribution, Study

study = Study(
    experiment=Failing(dataset="digits", num_epochs=1),
    space={"rate": FloatDistribution(0.1, 0.9)},
    n_trials=2,
)
'''

PYTHON = """
import harness
from experiments.failing import Failing
try:
    harness.run_experiment(Failing(dataset="digits", num_epochs=1))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""

NO_MEMORY = (
    'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9 bytes.")'
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            'ValueError("two layers\\nand more")',
            "failing failed: ValueError: two layers (failing.py, line 12)",
        ),
        (
            NO_MEMORY,
            "Out of memory with batch_size 256 (tried to allocate 9 bytes).\n"
            "Try --batch-size 128, or a smaller network.",
        ),
        ("SystemExit(3)", "failing failed: SystemExit: 3 (failing.py, line 12)"),
    ],
)
def test_a_failure_has_the_same_words_everywhere(
    checkout: Checkout, error: str, words: str
) -> None:
    (checkout.root / "experiments" / "failing.py").write_text(FAILING.format(error=error))
    (checkout.root / "studies" / "failing_search.py").write_text(STUDY)
    ran = checkout.run("failing", "--dataset", "digits", "--num-epochs", "1")
    assert (ran.status, ran.errors) == (1, f"error: {words}\n")
    searched = checkout.command("harness.study", "failing_search", "--workers", "1")
    assert searched.status == 1
    one_line = " ".join(words.split())
    assert searched.output.count(f"failed, no value after 0 epochs ({one_line})") == 2
    for run in checkout.runs():
        if run.data.tags["harness.kind"] == "trial":
            assert run.data.tags["harness.reason"] == words
            assert run.info.status == "FAILED"
    called = subprocess.run(
        [sys.executable, "-c", PYTHON],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert called.stdout == f"RunFailed: {words}\n"
