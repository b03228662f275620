"""How long a training lasts: stopped early, its best model kept, trained further."""

from __future__ import annotations

import json

import pytest
from conftest import Checkout

from harness.tracking.reader import DatabaseReader
from harness.tracking.schema import StoredRun

DIGITS = ("--dataset", "digits", "--threads", "1", "--no-figures")

JUMPING = '''"""Improves for three epochs, then gets worse."""

import torch
from torch import nn

from harness import Experiment


class Jumping(Experiment):
    def network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def optimizer(self, parameters):
        return Jumps(parameters, lr=self.lr)


class Jumps(torch.optim.SGD):
    updates = 0

    def step(self, closure=None):
        Jumps.updates += 1
        if Jumps.updates > 3 * 5:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.mul_(-1)
        return super().step(closure)
'''


def read(checkout: Checkout, run_id: str) -> StoredRun:
    return DatabaseReader(checkout.store).run(run_id)


def losses(checkout: Checkout, run_id: str) -> list[float]:
    points = DatabaseReader(checkout.store).history([run_id])
    return [value for _, _, name, value in points if name == "train/loss"]


def test_a_training_that_stops_improving_ends_and_its_best_model_is_kept(
    checkout: Checkout,
) -> None:
    (checkout.root / "experiments" / "jumping.py").write_text(JUMPING)
    words = ("jumping", *DIGITS, "--num-epochs", "30", "--lr", "0.1", "--patience", "2")
    refused = checkout.run(*words)
    assert (refused.status, refused.errors) == (
        2,
        "error: patience: it needs validation examples, and validation_size is 0. Set some aside: "
        "--validation-size 10000\n",
    )
    refused = checkout.run("jumping", *DIGITS, "--keep-best")
    assert refused.status == 2
    assert refused.errors.startswith("error: keep_best: it needs validation examples")
    assert not checkout.store.exists()

    ended = checkout.run(*words, "--validation-size", "200", "--keep-best")
    assert ended.status == 0, ended.errors
    run = read(checkout, ended.run_id)
    assert (run.outcome, run.num_epochs) == ("completed", 5)
    points = DatabaseReader(checkout.store).history([ended.run_id])
    accuracy = {epoch: v for _, epoch, name, v in points if name == "validation/accuracy"}
    assert max(accuracy, key=lambda epoch: accuracy[epoch]) == 3
    with checkout.opened() as client:
        (model,) = client.search_logged_models([client.get_run(ended.run_id).info.experiment_id])
        logged = client.get_logged_model(model.model_id)
        measured = {m.key: m.value for m in logged.metrics or () if m.key == "validation/accuracy"}
    assert measured == {"validation/accuracy": accuracy[3]}
    repeated = checkout.command("harness.verify", ended.run_id)
    assert repeated.status == 0, repeated.output
    assert "identical" in repeated.output


def test_a_completed_run_is_trained_further_to_the_numbers_of_a_longer_one(
    checkout: Checkout,
) -> None:
    first = checkout.run("dropout_mlp", *DIGITS, "--num-epochs", "2")
    whole = checkout.run("dropout_mlp", *DIGITS, "--num-epochs", "4")
    longer = checkout.run("--continue", first.run_id[:8], "--num-epochs", "4")
    assert longer.status == 0, longer.errors
    assert longer.run_id not in (first.run_id, whole.run_id)
    assert [line[:9] for line in longer.output.splitlines()[:2]] == ["epoch 3/4", "epoch 4/4"]
    run = read(checkout, longer.run_id)
    assert run.tag("continues") == first.run_id
    assert run.parameters["num_epochs"] == 4
    assert losses(checkout, longer.run_id) == losses(checkout, whole.run_id)
    digests = {read(checkout, r.run_id).tag("weights_sha256") for r in (longer, whole)}
    assert len(digests) == 1
    assert losses(checkout, first.run_id) == losses(checkout, whole.run_id)[:2]
    assert checkout.command("harness.verify", longer.run_id).status == 0
    last = checkout.run("--continue", "last", "--num-epochs", "5")
    assert last.output.startswith("epoch 5/5")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--num-epochs", "1"), "num_epochs: 1 is not more than the 1 epochs that"),
        (("--num-epochs", "0"), "num_epochs: 0 is not allowed"),
        ((), "Missing: --num-epochs"),
    ],
)
def test_a_length_that_is_no_longer_is_refused(
    checkout: Checkout, flags: tuple[str, ...], words: str
) -> None:
    done = checkout.run("softmax_regression", *DIGITS, "--num-epochs", "1")
    ended = checkout.run("--continue", done.run_id, *flags)
    assert ended.status == 2
    assert words in ended.errors


def test_what_cannot_be_trained_further_is_refused_with_the_way_out(checkout: Checkout) -> None:
    cosine = checkout.run(
        *("softmax_regression", *DIGITS, "--num-epochs", "1", "--schedule", "cosine")
    )
    ended = checkout.run("--continue", cosine.run_id, "--num-epochs", "2")
    assert ended.status == 2
    assert "follows cosine, which depends on the length of the training" in ended.errors
    plain = checkout.run("softmax_regression", *DIGITS, "--num-epochs", "1")
    for path in (checkout.root / "mlruns" / "checkpoints" / plain.run_id).iterdir():
        path.unlink()
    ended = checkout.run("--continue", plain.run_id, "--num-epochs", "2")
    assert ended.status == 2
    assert ended.errors.endswith(
        "train it anew: python -m harness.run softmax_regression --num-epochs 2\n"
    )
    assert json.dumps(ended.output) == '""'


def test_a_study_that_searches_the_length_does_not_prune(checkout: Checkout) -> None:
    (checkout.root / "studies" / "length.py").write_text(
        '"""How long?"""\n\n'
        "from experiments.baseline import Baseline\n"
        "from harness import IntDistribution, Study\n\n"
        'study = Study(experiment=Baseline(dataset="digits", num_epochs=1), n_trials=3,\n'
        '    space={"num_epochs": IntDistribution(1, 3)})\n'
    )
    words = ("length", "--threads", "1", "--workers", "1", "--confirm-seeds", "1")
    refused = checkout.command("harness.study", *words, "--pruner", "median")
    assert refused.status == 2
    assert "pruner: median would compare trainings of unequal length" in refused.errors
    ended = checkout.command("harness.study", *words)
    assert ended.status == 0, ended.errors
    trials = [r for r in DatabaseReader(checkout.store).runs("length") if r.kind == "trial"]
    assert all(run.num_epochs == run.parameters["num_epochs"] for run in trials)
    assert {run.outcome for run in trials} == {"completed"}
