"""Averaged weights: the means that they are, and the batch statistics that go with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from harness import Experiment, Metric
from harness.base.errors import BadRequest
from harness.execution.preparation import DataSource
from harness.search.objective import Objective, goal_of
from harness.training.averaging import AverageName, WeightAverage, recompute_batch_statistics
from harness.training.device import Execution
from harness.training.loop import Training

CPU = torch.device("cpu")


class Normed(Experiment):
    """With batch normalisation, and dropout after it."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 12),
            nn.BatchNorm1d(12, momentum=0.3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(12, 10),
        )


def begun(experiment: Experiment) -> Training:
    return DataSource(None).prepare(experiment).training(Execution(), CPU)


@pytest.fixture
def weights_after_each_update(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """Collected by the average itself, which is asked after each update."""
    seen: list[list[torch.Tensor]] = []
    add = WeightAverage.add

    def collect(average: WeightAverage) -> None:
        seen.append([p.clone() for p in average._parameters.values()])
        add(average)

    monkeypatch.setattr(WeightAverage, "add", collect)
    return seen


@pytest.mark.parametrize("average", ["last-epoch", "ema"])
def test_the_average_is_the_mean_that_it_is_called(
    average: AverageName, weights_after_each_update: list[list[torch.Tensor]]
) -> None:
    training = begun(
        Normed(dataset="digits", num_epochs=3, batch_size=200, average_weights=average)
    )
    for epoch, _ in enumerate(training.epochs(), start=1):
        updates = [torch.cat([p.flatten() for p in ps]) for ps in weights_after_each_update]
        assert len(updates) == 8 * epoch
        expected = torch.stack(updates[:8] if average == "ema" else updates[-8:]).mean(0)
        if average == "ema":
            for weights in updates[8:]:
                expected += (weights - expected) / 8
        with training.averaged():
            found = torch.cat([p.detach().flatten() for p in training.network.parameters()])
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.equal(
            torch.cat([p.detach().flatten() for p in training.network.parameters()]), updates[-1]
        )


def test_what_is_recorded_is_what_the_averaged_network_gives() -> None:
    training = begun(Normed(dataset="digits", num_epochs=2, average_weights="last-epoch"))
    *_, last = training.epochs()
    with training.averaged():
        again = training.evaluate()
    assert last.metrics["test/average_accuracy"] == again["accuracy"]
    assert last.metrics["test/average_loss"] == again["loss"]
    assert last.metrics["test/average_loss"] != last.metrics["test/loss"]


def test_the_statistics_are_those_of_torchs_own_function() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 2))
    network(torch.randn(5, 4))  # the statistics of the training are to go
    other, batches = copy.deepcopy(network), [torch.randn(5, 4) for _ in range(3)]
    recompute_batch_statistics(network, batches)
    torch.optim.swa_utils.update_bn(batches, other)
    found, expected = network.state_dict(), other.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm1d)] == [0.3]


@pytest.mark.parametrize("size", [1, 2])
def test_statistics_are_those_of_all_batches_alike(size: int) -> None:
    norm = nn.BatchNorm1d(3)
    network = nn.Sequential(norm, nn.Dropout(0.5))
    batches = [torch.randn(5, 3) + 7 for _ in range(size)]
    state = torch.get_rng_state()
    recompute_batch_statistics(network, iter(batches))
    assert torch.equal(torch.get_rng_state(), state)
    mean = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, mean)
    assert not any(module.training for module in network.modules())


class Frozen(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


def test_a_frozen_normalisation_stays_as_it_is() -> None:
    frozen = Frozen(3)
    network = nn.Sequential(frozen, nn.BatchNorm1d(3, track_running_stats=False))
    recompute_batch_statistics(network, [torch.ones(2, 3)])
    assert torch.equal(frozen.state_dict()["running_mean"], torch.zeros(3))


def test_the_training_goes_on_unharmed_if_the_evaluation_fails() -> None:
    training = begun(Normed(dataset="digits", num_epochs=2, average_weights="ema"))
    epochs: Iterator[Any] = training.epochs()
    next(epochs)
    before = copy.deepcopy(training.network.state_dict())
    with pytest.raises(ZeroDivisionError), training.averaged():
        1 / 0  # noqa: B018
    after = training.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Measured(Normed):
    def metrics(self) -> dict[str, Metric]:
        hit = Metric(best="max", per_example=lambda logits, labels: logits.argmax(1) == labels)
        return {"hits": hit, "average_hits": hit}


def test_a_metric_may_not_be_called_like_an_average() -> None:
    assert begun(Measured(dataset="digits")).average is None
    with pytest.raises(BadRequest, match="average_hits is the hits of the averaged weights"):
        begun(Measured(dataset="digits", average_weights="ema"))


def test_an_average_is_an_objective_if_there_is_one() -> None:
    goal = goal_of(Objective("validation/average_loss"), Normed(average_weights="ema").directions())
    assert goal.direction == "minimize"
    with pytest.raises(BadRequest, match="needs averaged weights: --average-weights last-epoch"):
        goal_of(Objective("validation/average_loss"), Normed().directions())
    with pytest.raises(BadRequest, match="there is no metric 'validation/average_f1'"):
        goal_of(Objective("validation/average_f1"), Normed().directions())
