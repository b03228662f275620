"""A past run is repeated from its record; what does not hold is found, and what changed is told."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import QUICK, Checkout, Ended
from mlflow.entities import Run

WORDS = ("dropout_mlp", "--dataset", "digits", "--num-epochs", "3", "--threads", "1")


def verify(checkout: Checkout, *words: str) -> Ended:
    return checkout.command("harness.verify", *words)


def run_of(checkout: Checkout, run_id: str) -> Run:
    with checkout.opened() as client:
        return client.get_run(run_id)


def everything(checkout: Checkout, run_id: str) -> tuple[object, ...]:
    """All that the store has of a run."""
    with checkout.opened() as client:
        run = client.get_run(run_id)
        history = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
        files = [entry.path for entry in client.list_artifacts(run_id)]
    return run.to_dictionary(), {name: list(map(str, h)) for name, h in history.items()}, files


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    checkout = Checkout.copied_to(tmp_path_factory.mktemp("original") / "checkout")
    ended = checkout.run(*WORDS, "--no-figures")
    assert ended.status == 0, ended.errors
    return checkout, ended.run_id


@pytest.fixture
def recorded(original: tuple[Checkout, str], tmp_path: Path) -> tuple[Checkout, str]:
    """A checkout with one recorded run, to do with as a test likes."""
    checkout, run_id = original
    return Checkout(Path(shutil.copytree(checkout.root, tmp_path / "copy"))), run_id


def test_a_run_that_holds_is_identical_and_stays_as_it_is(recorded: tuple[Checkout, str]) -> None:
    checkout, run_id = recorded
    before = everything(checkout, run_id)
    verified = verify(checkout, run_id, "--quiet")
    assert verified.status == 0, verified.errors
    assert verified.output.startswith(
        "identical: all 12 numbers to the bit, final weights included"
    )
    assert everything(checkout, run_id) == before
    repeated = run_of(checkout, verified.run_id)
    assert repeated.data.tags["harness.kind"] == "verify"
    assert repeated.data.tags["harness.verifies"] == run_id
    assert repeated.data.tags["harness.verdict"] == "identical"
    assert repeated.info.status == "FINISHED"
    with checkout.opened() as client:
        path = client.download_artifacts(verified.run_id, "verification.json")
        assert json.loads(Path(path).read_text())["differences"] == []


def test_the_first_number_that_does_not_hold_is_named(recorded: tuple[Checkout, str]) -> None:
    checkout, run_id = recorded
    with sqlite3.connect(checkout.store) as connection:
        changed = connection.execute(
            "UPDATE metrics SET value = value + 1e-6 "
            "WHERE run_uuid = ? AND key = 'test/loss' AND step = 2",
            (run_id,),
        )
    assert changed.rowcount == 1
    verified = verify(checkout, run_id, "--quiet")
    assert verified.status == 1
    assert verified.output.startswith("different: from epoch 2 on: test/loss was ")
    assert re.search("; 1 of 12 numbers differ, by [0-9.]+e-07 at most", verified.output)
    assert run_of(checkout, verified.run_id).data.tags["harness.verdict"] == "different"


def test_what_has_changed_since_is_told(recorded: tuple[Checkout, str]) -> None:
    checkout, run_id = recorded
    path = checkout.root / "experiments" / "dropout_mlp.py"
    path.write_text(path.read_text().replace("nn.Dropout(self.dropout)", "nn.Dropout(0.1)"))
    verified = verify(checkout, run_id, "--quiet")
    assert verified.status == 1
    assert "different: from epoch 1 on: " in verified.output
    assert re.search(r"^  experiment_sha256 was \w+, is \w+$", verified.output, re.MULTILINE)
    assert "torch was" not in verified.output


def test_another_number_of_threads_is_judged_within_the_tolerance(
    recorded: tuple[Checkout, str],
) -> None:
    checkout, run_id = recorded
    verified = verify(checkout, run_id, "--threads", "2", "--quiet")
    assert verified.status == 0, verified.output
    assert "threads was 1, is 2" in verified.output
    # The record is far from what any number of threads gives.
    with sqlite3.connect(checkout.store) as connection:
        connection.execute("UPDATE metrics SET value = 0.5 WHERE key = 'train/accuracy'")
    verified = verify(checkout, run_id, "--threads", "2", "--quiet")
    assert verified.status == 1
    assert "(tolerance 0.01)" in verified.output


def test_trials_and_confirmations_can_be_verified_too(checkout: Checkout) -> None:
    studied = checkout.command(
        *("harness.study", "joint_search", *QUICK, "--n-trials", "2", "--confirm-seeds", "1"),
        *("--workers", "1"),
    )
    assert studied.status == 0, studied.errors
    kinds = {}
    for run in checkout.runs():
        kinds[run.data.tags["harness.kind"]] = run.info.run_id
    for kind, numbers in (("trial", 8), ("confirm", 6)):
        verified = verify(checkout, kinds[kind], "--quiet")
        assert verified.status == 0, verified.output + verified.errors
        assert verified.output.startswith(f"identical: all {numbers} numbers to the bit")
    refused = verify(checkout, kinds["study"])
    assert refused.status == 2
    assert "is a study" in refused.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0" * 32,), "0" * 32),
        (("../../etc",), "'../../etc'"),
        (("--exact",), "Missing: RUN."),
        ((), "Missing: RUN."),
    ],
)
def test_what_is_not_a_run_is_refused(
    original: tuple[Checkout, str], words: tuple[str, ...], message: str
) -> None:
    checkout, _ = original
    refused = verify(checkout, *words)
    assert refused.status == 2
    assert message in refused.errors
    assert "Traceback" not in refused.errors
    assert len(refused.errors.splitlines()) <= 3
