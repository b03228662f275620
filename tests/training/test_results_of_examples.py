"""The results on single examples are those whose mean is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Recorded
from torch import nn

from experiments.baseline import Baseline
from experiments.diabetes_regression import DiabetesRegression
from harness.base.example_results import ExampleResults
from harness.execution.preparation import DataSource
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import Training
from harness.training.metrics import Metric, loss_of_examples


def trained(experiment: Experiment) -> Training:
    training = DataSource(None).prepare(experiment).training(Execution(), torch.device("cpu"))
    list(training.epochs())
    return training


class Weighted(Baseline):
    """Its loss is no plain mean, and it has a metric of its own."""

    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss(weight=torch.ones(10))

    def metrics(self) -> dict[str, Metric]:
        def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            top = logits.topk(2, dim=1).values
            return top[:, 0] - top[:, 1]

        return {**super().metrics(), "margin": Metric(best="max", per_example=margin)}


@pytest.mark.parametrize(
    ("experiment", "names"),
    [
        (Baseline(dataset="digits", num_epochs=2), {"accuracy", "loss"}),
        (Weighted(dataset="digits", num_epochs=1), {"accuracy", "margin"}),
        (Baseline(dataset="digits", num_epochs=1, validation_size=100), {"accuracy", "loss"}),
        (DiabetesRegression(num_epochs=2), {"loss"}),
    ],
    ids=["classification", "own metric", "validation", "regression"],
)
def test_their_mean_is_the_recorded_metric(experiment: Experiment, names: set[str]) -> None:
    training = trained(experiment)
    results = training.example_results()
    recorded = training.history[-1].metrics
    assert results.keys() >= names
    assert ("loss" in results) == ("loss" in names)
    for name, values in results.items():
        assert values.shape == (len(training.evaluation_examples),)
        mean = float(values.double().mean())
        assert mean == pytest.approx(recorded[f"{training.evaluated_on}/{name}"], rel=1e-6)


def test_looking_at_them_leaves_the_training_alone() -> None:
    looked, other = (trained(Baseline(dataset="digits", num_epochs=1)) for _ in range(2))
    looked.example_results()
    assert looked.weights_digest() == other.weights_digest()
    assert looked.evaluate() == other.evaluate()


def test_a_loss_over_several_outputs_has_one_value_for_each_example() -> None:
    per_example = loss_of_examples(nn.MSELoss())
    assert per_example
    outputs, labels = torch.randn(5, 3), torch.randn(5, 3)
    assert per_example(outputs, labels).mean() == pytest.approx(nn.MSELoss()(outputs, labels))
    assert loss_of_examples(nn.CrossEntropyLoss(reduction="sum")) is None


def test_runs_and_confirmations_keep_them_and_trials_do_not(worked: Recorded) -> None:
    checkout, _ = worked
    kept = set()
    with checkout.opened() as client:
        for run in checkout.runs():
            kind, run_id = run.data.tags["harness.kind"], run.info.run_id
            files = [file.path for file in client.list_artifacts(run_id, "examples")]
            if kind in ("run", "confirm"):
                assert files == ["examples/test_accuracy.bin", "examples/test_loss.bin"]
                path = client.download_artifacts(run_id, files[0])
                with open(path, "rb") as file:
                    found = ExampleResults.decode(file.read())
                assert found.examples == run.data.tags["harness.data.test_sha256"]
                assert np.mean(found.values) == run.data.metrics["test/accuracy"]
                kept.add(kind)
            else:
                assert files == []
    assert kept == {"run", "confirm"}
