"""Trials that hang: ended after their time wherever they hang, while the study goes on."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter

import psutil
import pytest
from conftest import QUICK, Checkout, Ended
from optuna.trial import TrialState

from harness.search.samplers import CONSTRAINT, HAS_CONSTRAINTS
from harness.search.storage import StoredStudy, load_stored
from harness.tracking.reader import DatabaseReader
from harness.tracking.schema import StoredRun

HANGING = '''"""Hangs as it is told."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Literal

import torch
from torch import nn

from harness import Experiment


class Hanging(Experiment):
    mode: Literal["fine", "loop", "sleep", "call", "deaf", "stopped", "child", "network"] = "fine"

    def network(self):
        if self.mode == "network":
            time.sleep(1e6)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def observe(self, training):
        if len(training.history) < 2:
            return {}
        if self.mode == "loop":
            while True:
                pass
        if self.mode == "sleep":
            time.sleep(1e6)
        if self.mode == "call":  # it never returns, and no other thread runs meanwhile
            ctypes.PyDLL(None).pause()
        if self.mode == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1e6)
        if self.mode == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.mode == "child":
            subprocess.run([sys.executable, "-c", "import time; time.sleep(1e6)", "a hung child"])
        return {}
'''

SEARCH = '''"""Which way to hang is the worst?"""

from experiments.hanging import Hanging
from harness import CategoricalDistribution, Study

study = Study(
    experiment=Hanging({defaults}),
    space={{"mode": CategoricalDistribution({modes})}},
    n_trials=30,
)
'''

HANGS = ("loop", "sleep", "call", "deaf", "stopped", "child", "network")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals")


def searched(checkout: Checkout, *flags: str, modes: tuple[str, ...], defaults: str = "") -> Ended:
    (checkout.root / "experiments" / "hanging.py").write_text(HANGING)
    text = SEARCH.format(modes=list(modes), defaults=defaults)
    (checkout.root / "studies" / "hang_search.py").write_text(text)
    return checkout.command("harness.study", "hang_search", *QUICK, "--confirm-seeds", "1", *flags)


def stored(checkout: Checkout) -> StoredStudy:
    return load_stored(f"sqlite:///{checkout.root}/mlruns/optuna.db", "hang_search")


def trials(checkout: Checkout) -> dict[str, StoredRun]:
    """The trials' runs, by what they were told."""
    runs = DatabaseReader(checkout.store).runs("hang_search")
    return {str(run.fields["mode"]): run for run in runs if run.kind == "trial"}


def test_a_trial_that_hangs_is_ended_wherever_it_hangs(checkout: Checkout) -> None:
    ended = searched(
        checkout,
        *("--sampler", "grid", "--trial-timeout", "6", "--workers", "2"),
        modes=("fine", *HANGS),
    )
    assert (ended.status, ended.errors) == (0, "")
    for mode in HANGS:
        line = rf"trial \d mode='?{mode}'?: timed out, .* \(took longer than 6 s\)"
        assert re.search(line, ended.output), ended.output
    assert "8 of 8 trials finished (1 completed, 0 pruned, 0 diverged, 7 timed out" in ended.output
    assert "a hung child" not in str([p.info for p in psutil.process_iter(["cmdline"])])

    study = stored(checkout)
    assert len(study.trials) == 8, "none was tried again"
    assert study.user_attrs["trial_timeout"] == 6.0
    for trial in study.trials:
        timed_out = trial.user_attrs["outcome"] == "timed out"
        assert timed_out == (trial.params["mode"] != "fine")
        assert trial.state == TrialState.COMPLETE
        if timed_out:
            assert trial.values == [-float("inf")]
            if not HAS_CONSTRAINTS:
                assert trial.user_attrs[CONSTRAINT] == 1.0
    runs = trials(checkout)
    assert Counter(run.outcome for run in runs.values()) == {"timed out": 7, "completed": 1}
    for mode in HANGS:
        assert runs[mode].tag("reason") == "took longer than 6 s"
        assert runs[mode].num_epochs == (None if mode == "network" else 1)
    with checkout.opened() as client:
        assert client.get_run(runs["network"].run_id).info.status == "FAILED"
        (parent,) = (r for r in checkout.runs() if r.data.tags["harness.kind"] == "study")
        assert parent.data.metrics["study/timed_out"] == 7
        assert parent.data.tags["harness.trial_timeout"] == "6.0"
    report = checkout.command("harness.report", "hang_search", "--out", "r.html")
    assert report.status == 0, report.errors
    page = (checkout.root / "r.html").read_text()
    assert "1 completed, 7 timed out" in page
    assert "A trial was ended after 6 s." in page
    compared = checkout.command(
        "harness.compare",
        "--study",
        "hang_search",
        "--filter",
        "tags.harness.outcome = 'timed out'",
    )
    assert "timed out" in compared.output, compared


def test_a_trial_that_ends_in_time_is_not_ended_and_defaults_that_hang_are_not_confirmed(
    checkout: Checkout,
) -> None:
    ended = searched(
        checkout,
        *("--sampler", "grid", "--trial-timeout", "8", "--workers", "1", "--n-trials", "2"),
        modes=("fine", "sleep"),
        defaults='mode="sleep"',
    )
    assert (ended.status, ended.errors) == (0, "")
    assert {mode: run.outcome for mode, run in trials(checkout).items()} == {
        "sleep": "timed out",
        "fine": "completed",
    }
    assert "The defaults timed out as a trial: there is nothing to compare." in ended.output
    assert "Warning: the defaults timed out as a trial, and were not confirmed." in ended.output
    confirmed = [
        run.fields["mode"]
        for run in DatabaseReader(checkout.store).runs("hang_search")
        if run.kind == "confirm"
    ]
    assert confirmed == ["fine"]
    again = searched(
        checkout,
        *("--sampler", "grid", "--trial-timeout", "9", "--workers", "1", "--n-trials", "2"),
        modes=("fine", "sleep"),
        defaults='mode="sleep"',
    )
    assert again.output.startswith("hang_search has finished already"), again
    assert stored(checkout).user_attrs["trial_timeout"] == 8.0


def test_a_study_whose_trials_all_take_too_long_says_so(checkout: Checkout) -> None:
    words = ("--trial-timeout", "0.000001", "--n-trials", "2")
    ended = searched(checkout, *words, modes=("sleep",), defaults='mode="sleep"')
    assert ended.status == 1
    assert "No trial was completed (0 completed, 0 pruned, 0 diverged, 2 timed out" in ended.errors
    assert "(took longer than 1e-06 s)" in ended.output


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "trial_timeout: 0.0 is not allowed, it must be greater than 0."),
        ("-3", "trial_timeout: -3.0 is not allowed, it must be greater than 0."),
        ("nan", "trial_timeout: nan is not a finite number."),
        ("inf", "trial_timeout: inf is not a finite number."),
        ("5s", "--trial-timeout: '5s' is not a number."),
    ],
)
def test_a_limit_that_is_none_is_refused(checkout: Checkout, value: str, words: str) -> None:
    ended = checkout.command("harness.study", "lr_search", "--trial-timeout", value)
    assert (ended.status, ended.output) == (2, "")
    assert ended.errors.startswith(f"error: {words}")


def test_from_python_the_limit_has_the_same_name(checkout: Checkout) -> None:
    searched(checkout, "--dry-run", modes=("fine", "sleep"))
    script = """
import json, harness
answer = harness.run_study(
    "hang_search", sampler="grid", trial_timeout=6, workers=1, confirm_seeds=0, quiet=True
)
print(json.dumps(answer.answer()))
"""
    (checkout.root / "script.py").write_text(script)
    (checkout.root / "studies" / "hang_search.py").write_text(
        SEARCH.format(modes=["fine", "sleep"], defaults='dataset="digits", num_epochs=2')
    )
    ended = checkout.command("script")
    assert ended.status == 0, ended.errors
    answer = json.loads(ended.output.splitlines()[-1])
    assert answer["counts"]["timed_out"] == 1
    assert answer["trial_timeout"] == 6.0
    assert "--trial-timeout 6" in answer["command"]
