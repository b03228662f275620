"""Averaged weights from the command line: measured, logged, searched, resumed, repeated."""

from __future__ import annotations

import signal
import tempfile

import mlflow
import pytest
import torch
from conftest import Checkout

from harness.tracking.reader import DatabaseReader
from harness.tracking.schema import StoredRun
from harness.training.builtin_datasets import data_root, open_dataset

DIGITS = ("--dataset", "digits", "--threads", "1", "--no-figures")

NORMED = '''"""Batch normalisation."""

from torch import nn

from harness import Experiment


class Normed(Experiment):
    def network(self):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10)
        )
'''


def read(checkout: Checkout, run_id: str) -> StoredRun:
    return DatabaseReader(checkout.store).run(run_id)


def by_epoch(checkout: Checkout, run_id: str) -> dict[tuple[int, str], float]:
    points = DatabaseReader(checkout.store).history([run_id])
    parts = ("train/", "test/", "validation/")
    return {(epoch, name): value for _, epoch, name, value in points if name.startswith(parts)}


def weights(checkout: Checkout, run_id: str) -> dict[str, torch.Tensor]:
    with checkout.opened() as client, tempfile.TemporaryDirectory() as folder:
        file = client.download_artifacts(run_id, "weights.pt", folder)
        return dict(torch.load(file, weights_only=True))


@pytest.fixture
def normed(checkout: Checkout) -> Checkout:
    (checkout.root / "experiments" / "normed.py").write_text(NORMED)
    return checkout


def test_the_averaged_model_is_logged_on_request(normed: Checkout) -> None:
    words = ("normed", *DIGITS, "--num-epochs", "3", "--lr", "0.5")
    plain = normed.run(*words)
    averaged = normed.run(*words, "--average-weights", "last-epoch", "--log-average")
    assert averaged.status == 0, averaged.errors
    before, run = read(normed, plain.run_id), read(normed, averaged.run_id)
    assert run.tag("weights_sha256") == before.tag("weights_sha256")
    assert run.parameters["average_weights"] == "last-epoch"
    assert run.settings["log_average"] is True
    accuracy = run.metrics["test/average_accuracy"]
    assert accuracy != run.metrics["test/accuracy"]
    assert f"; averaged weights accuracy {accuracy:.4f}, loss " in averaged.output
    assert f"average loss {run.metrics['test/average_loss']:.4f}" in averaged.output
    numbers = by_epoch(normed, averaged.run_id)
    assert {key: value for key, value in numbers.items() if "average" not in key[1]} == by_epoch(
        normed, plain.run_id
    )
    images, labels = open_dataset("digits", data_root()).test.batch(torch.arange(360))
    kept = weights(normed, averaged.run_id)
    with normed.opened() as client:
        model = mlflow.pytorch.load_model(f"runs:/{averaged.run_id}/model")
        for ended, name in ((averaged, "test/average_accuracy"), (plain, "test/accuracy")):
            (found,) = client.search_logged_models(
                [client.get_run(ended.run_id).info.experiment_id],
                f"source_run_id = '{ended.run_id}'",
            )
            measured = {m.key for m in client.get_logged_model(found.model_id).metrics or ()}
            assert name in measured
            assert {"average" in key for key in measured} == {ended is averaged}
        assert (
            "The model has the averaged weights."
            in (client.get_run(averaged.run_id).data.tags["mlflow.note.content"])
        )
    assert float((model(images).argmax(1) == labels).float().mean()) == pytest.approx(accuracy)
    assert torch.equal(kept["1.weight"], model.state_dict()["1.weight"])
    repeated = normed.command("harness.verify", averaged.run_id)
    assert "identical" in repeated.output, repeated.output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--log-average",), "log_average: there are no averaged weights. Average them:"),
        (
            (
                *("--log-average", "--keep-best", "--average-weights", "ema"),
                *("--validation-size", "100"),
            ),
            "log_average: only one model is logged, and keep_best asks for",
        ),
        (("--average-weights", "mean"), "average_weights"),
        (("--loss-scale", "sum"), "loss_scale"),
        (
            ("--drop-last", "--batch-size", "2000"),
            "drop_last: no batch is left: batch_size is 2,000, and there are 1,437 training",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    checkout: Checkout, flags: tuple[str, ...], words: str
) -> None:
    refused = checkout.run("baseline", *DIGITS, *flags)
    assert (refused.status, refused.output) == (2, "")
    assert words in refused.errors.replace("-", "_") or words in refused.errors
    assert "Traceback" not in refused.errors
    assert not checkout.store.exists()


def test_a_killed_run_goes_on_with_its_average(normed: Checkout) -> None:
    words = (
        *("normed", *DIGITS, "--num-epochs", "60", "--average-weights", "ema"),
        *("--log-average", "--checkpoint-every", "2"),
    )
    whole = normed.run(*words)
    process = normed.start("harness.run", *words)
    assert process.stdout
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = normed.run("--resume", "last", "--quiet")
    assert resumed.status == 0, resumed.errors
    assert by_epoch(normed, resumed.run_id) == by_epoch(normed, whole.run_id)
    ours, theirs = (weights(normed, run.run_id) for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_seeds_are_averaged_each_for_itself(checkout: Checkout) -> None:
    words = ("baseline", *DIGITS, "--num-epochs", "2", "--average-weights", "last-epoch")
    group = checkout.run(*words, "--repeats", "2")
    alone = checkout.run(*words, "--seed", "1")
    assert group.status == 0, group.errors
    assert "  test/average_accuracy  " in group.output
    children = {run.seed: run for run in DatabaseReader(checkout.store).children(group.run_id)}
    assert by_epoch(checkout, children[1].run_id) == by_epoch(checkout, alone.run_id)
    compared = checkout.command("harness.compare", "--experiment", "baseline")
    assert "average_accuracy" in compared.output


STUDY = '''"""Averages."""

from optuna.distributions import FloatDistribution

from experiments.baseline import Baseline
from harness import Objective, Study

study = Study(
    experiment=Baseline(
        dataset="digits", num_epochs=2, validation_size=200, average_weights="ema"
    ),
    space={"lr": FloatDistribution(0.01, 1.0, log=True)},
    n_trials=3,
    objective=Objective("validation/average_accuracy"),
)
'''


def test_an_average_is_an_objective(checkout: Checkout) -> None:
    (checkout.root / "studies" / "averages.py").write_text(STUDY)
    ended = checkout.command("harness.study", "averages", "--workers", "1", "--confirm-seeds", "2")
    assert ended.status == 0, ended.errors
    runs = DatabaseReader(checkout.store).children(ended.run_id)
    trials = [run for run in runs if run.kind == "trial"]
    best = max(run.metrics["validation/average_accuracy"] for run in trials)
    assert f"validation average_accuracy {best:.4f} (n = 1 seed" in ended.output
    assert all(run.objective == "validation/average_accuracy" for run in trials)
    confirmed = [run for run in runs if run.kind == "confirm"]
    assert confirmed
    assert all("test/average_accuracy" in run.metrics for run in confirmed)
    assert "test average_accuracy" in ended.output
    refused = checkout.command("harness.study", "averages", "--average-weights", "off")
    assert refused.status == 2
    assert "validation/average_accuracy needs averaged weights: --average-weights" in refused.errors
