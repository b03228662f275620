"""Metrics and observations of an experiment: declared in its file, measured in every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness import Experiment, Metric
from harness.base.errors import BadRequest, RunFailed
from harness.training.builtin_datasets import open_dataset
from harness.training.device import Execution
from harness.training.loop import Training
from harness.training.metrics import ACCURACY, MetricTally, checked_metrics, directions


class Hits:
    """An accumulator written by hand, with the protocol of torchmetrics."""

    def __init__(self) -> None:
        self.reset()

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        assert not logits.requires_grad
        self.hits += int((logits.argmax(1) == labels).sum())
        self.n += len(labels)

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.hits / self.n, dtype=torch.float64)

    def reset(self) -> None:
        self.hits = self.n = 0


class Plain(Experiment):
    def network(self) -> nn.Module:
        layer = nn.Linear(784, 10)
        nn.init.normal_(layer.weight, std=0.01)
        return nn.Sequential(nn.Flatten(), layer)


class Measured(Plain):
    def metrics(self) -> dict[str, Metric]:
        margin = Metric(best="max", per_example=lambda logits, labels: logits.amax(1))
        return {"hits": Metric(Hits, best="max"), "margin": margin, **super().metrics()}

    def observe(self, training: Any) -> dict[str, float]:
        gradients = [p.grad.norm() for p in training.network.parameters() if p.grad is not None]
        torch.rand(3)  # draws here leave the training as it is
        norm = float(torch.stack(gradients).norm())
        return {"norm/gradient": norm, "epochs_so_far": len(training.history)}


class Scheduled(Plain):
    def scheduler(self, optimizer: Any, num_updates: int) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, num_updates // self.num_epochs, 0.5)


def trained(experiment: Experiment) -> Training:
    data = open_dataset("digits", Path())
    execution, device = Execution(threads=1), torch.device("cpu")
    training = Training(experiment, data.train, data.test, "test", execution, device)
    for _ in training.epochs():
        pass
    return training


def test_own_metrics_are_measured_beside_the_loss_and_change_no_bit() -> None:
    plain, measured = trained(Plain(num_epochs=2)), trained(Measured(num_epochs=2))
    for before, after in zip(plain.history, measured.history, strict=True):
        for name in ("train/loss", "test/loss", "train/accuracy", "test/accuracy"):
            assert before.metrics[name] == after.metrics[name]
        for part in ("train", "test"):
            assert after.metrics[f"{part}/hits"] == after.metrics[f"{part}/accuracy"]
    assert plain.weights_digest() == measured.weights_digest()
    test = measured.evaluation_examples
    with torch.no_grad():
        logits = measured.network(test.batch(torch.arange(len(test)))[0])
    margin = float(logits.amax(1).mean(dtype=torch.float64))
    assert measured.history[-1].metrics["test/margin"] == pytest.approx(margin, rel=1e-5)


def test_observations_are_recorded_under_their_own_names() -> None:
    history = trained(Measured(num_epochs=2)).history
    assert [result.metrics["epochs_so_far"] for result in history] == [1, 2]
    assert all(result.metrics["norm/gradient"] > 0 for result in history)


def test_the_learning_rate_is_recorded_where_there_is_a_schedule() -> None:
    rates = [result.metrics["lr"] for result in trained(Scheduled(num_epochs=3)).history]
    assert rates == [0.1, 0.05, 0.025]
    assert "lr" not in trained(Plain(num_epochs=1)).history[0].metrics


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_a_mean_over_examples_does_not_depend_on_the_batches(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sum(sizes), 3, generator=generator)
    labels = torch.randint(3, (sum(sizes),), generator=generator)
    square = Metric(best="min", per_example=lambda logits, labels: (logits[:, 0] - labels) ** 2)
    tally = MetricTally({"accuracy": ACCURACY, "square": square}, torch.device("cpu"))
    for batch, of in zip(logits.split(sizes), labels.split(sizes), strict=True):
        tally.update(batch, nn.functional.cross_entropy(batch, of), of)
    values = tally.values()
    assert values["accuracy"] == int((logits.argmax(1) == labels).sum()) / len(labels)
    assert values["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), 1e-4)
    expected = float(((logits[:, 0] - labels) ** 2).double().mean())
    assert values["square"] == pytest.approx(expected, rel=1e-5)
    tally.update(logits, torch.tensor(1.0), labels)
    assert tally.values()["loss"] == 1, "the next pass begins anew"


@pytest.mark.parametrize(
    "values",
    [
        lambda logits, labels: logits,
        lambda logits, labels: logits.amax(),
        lambda logits, labels: 0.5,
        lambda logits, labels: logits.amax(1).tolist(),
    ],
)
def test_a_metric_that_is_no_value_for_each_example_is_named(values: Any) -> None:
    tally = MetricTally({"margin": Metric(per_example=values)}, torch.device("cpu"))
    with pytest.raises(RunFailed, match=r"per_example of the metric margin must return .* \(4,\)"):
        tally.update(torch.zeros(4, 3), torch.tensor(1.0), torch.zeros(4, dtype=torch.int64))


def test_a_metric_needs_something_to_call_and_a_direction_that_exists() -> None:
    wrong: list[dict[str, Any]] = [{}, {"make": Hits()}, {"make": Hits, "best": "maximum"}]
    for given_wrong in wrong:
        with pytest.raises(BadRequest, match=r"^Metric: "):
            Metric(**given_wrong)


def test_metrics_have_names_of_their_own() -> None:
    wrong: list[Any] = [{"loss": ACCURACY}, {"test/f1": ACCURACY}, {"": ACCURACY}, {"hits": Hits()}]
    for metrics in [*wrong, [ACCURACY]]:
        with pytest.raises(BadRequest, match=r"^metrics\(\): "):
            checked_metrics(metrics)
    assert directions({"b": ACCURACY, "a": Metric(Hits)}) == {"b": "max", "a": None, "loss": "min"}


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        ({"test/accuracy": 1.0}, "'test/accuracy' begins with a word that the harness uses"),
        ({"two numbers": 1.0}, "'two numbers' is no name"),
        ({"norm": "large"}, "norm: expected one number, got a str"),
        ({"norm": torch.ones(2)}, r"norm: expected one number, got a Tensor of shape \(2,\)"),
        (3.0, "expected a dict of numbers by name"),
    ],
)
def test_an_observation_is_one_number_under_its_own_name(observed: Any, words: str) -> None:
    class Odd(Plain):
        def observe(self, training: Any) -> Any:
            return observed

    with pytest.raises(RunFailed, match=words):
        trained(Odd(num_epochs=1))


def test_a_metric_of_several_numbers_is_refused() -> None:
    class PerClass(Hits):
        def compute(self) -> torch.Tensor:
            return torch.ones(10)

    class Odd(Plain):
        def metrics(self) -> dict[str, Metric]:
            return {"f1": Metric(PerClass)}

    with pytest.raises(RunFailed, match=r"metric f1: .* one number, got a Tensor of shape \(10,\)"):
        trained(Odd(num_epochs=1))
