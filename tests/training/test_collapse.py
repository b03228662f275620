"""A collapse: the loss is finite, and nothing was learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from experiments.baseline import Baseline
from experiments.softmax_regression import SoftmaxRegression
from harness import Dataset, Experiment
from harness.execution.preparation import DataSource
from harness.training.device import Execution
from harness.training.loop import Training


def trained(experiment: Experiment) -> Training:
    training = DataSource(None).prepare(experiment).training(Execution(), torch.device("cpu"))
    list(training.epochs())
    return training


@pytest.mark.parametrize(
    ("experiment", "collapsed"),
    [
        (Baseline(dataset="digits", lr=80, init_std=0.3, batch_size=64), True),
        (Baseline(dataset="digits", init_std=0), True),
        (Baseline(dataset="digits", num_epochs=1), False),
        (Baseline(dataset="digits", lr=1e30), False),  # diverged
        # Far too sure, with a loss above ln(10), but right.
        (SoftmaxRegression(dataset="digits", lr=500), False),
        (Baseline(dataset="digits", num_epochs=1, init_std=1), False),
    ],
)
def test_nothing_learned_is_told_from_something(experiment: Experiment, collapsed: bool) -> None:
    training = trained(experiment)
    state = torch.get_rng_state()
    assert training.collapsed == collapsed
    assert torch.equal(torch.get_rng_state(), state)


class Constant(Experiment):
    """Two classes, told apart by the sign of one input; a bias that decides alone."""

    num_epochs = 1
    share: float = 0.5

    def data(self, root: Any) -> Dataset:
        inputs = np.linspace(-1, 1, 101, dtype=np.float32)[:, None]
        labels = (inputs[:, 0] > 1 - 2 * self.share).astype(np.int64)
        return Dataset.from_arrays("signs", train=(inputs, labels), test=(inputs, labels))

    def network(self) -> nn.Module:
        network = nn.Linear(1, 2)
        nn.init.zeros_(network.weight)
        network.bias.data = torch.tensor([20.0, 0.0])
        return network


class Weighted(Constant):
    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))


class Summed(Constant):
    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="sum")


class Margin(Constant):
    def loss(self) -> nn.Module:
        return nn.MultiMarginLoss()


@pytest.mark.parametrize(
    ("kind", "collapsed"), [(Constant, True), (Weighted, False), (Summed, False), (Margin, False)]
)
def test_only_a_plain_mean_cross_entropy_is_judged(kind: type[Experiment], collapsed: bool) -> None:
    assert trained(kind(lr=1e-9)).collapsed == collapsed


class Ranked(Constant):
    """Right about the order of all examples, below one half for each."""

    def network(self) -> nn.Module:
        network = nn.Linear(1, 2)
        network.weight.data = torch.tensor([[0.0], [9.0]])
        network.bias.data = torch.tensor([9.1, 0.0])
        return network


def test_one_class_for_all_is_no_collapse_if_the_rare_class_is_ranked() -> None:
    assert not trained(Ranked(lr=1e-9, share=0.05)).collapsed
    assert trained(Constant(lr=1e-9, share=0.05)).collapsed


class OneSided(Constant):
    def data(self, root: Any) -> Dataset:
        inputs = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
        labels = (inputs[:, 0] > 0).astype(np.int64)
        test = (inputs[:50], labels[:50])
        return Dataset.from_arrays("sides", train=(inputs, labels), test=test, classes=("a", "b"))


def test_a_single_class_of_evaluation_examples_tells_nothing() -> None:
    assert not trained(OneSided(lr=1e-9)).collapsed
