"""A checkpoint is restored where it fits, and refused with the reason where it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from experiments.baseline import Baseline
from harness.execution.preparation import DataSource
from harness.training import checkpoint
from harness.training.checkpoint import CheckpointDamaged
from harness.training.device import Execution
from harness.training.loop import EpochResult, Training
from harness.training.rehearsal import rehearse


class Momentum(Baseline):
    """Its optimizer keeps something of each parameter."""

    hidden_width: int = 8

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, num_updates: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        return torch.optim.lr_scheduler.StepLR(optimizer, num_updates)


def begun() -> Training:
    experiment = Momentum(dataset="digits", num_epochs=2)
    return DataSource(None).prepare(experiment).training(Execution(), torch.device("cpu"))


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Any], list[EpochResult]]:
    training = begun()
    next(training.epochs())
    return checkpoint.decode(checkpoint.encode(training.state())), training.history


def test_what_fits_is_restored(trained: tuple[dict[str, Any], list[EpochResult]]) -> None:
    training = begun()
    rehearse(training, *trained)
    assert training.history == trained[1]
    assert torch.equal(training.network.state_dict()["1.weight"], trained[0]["network"]["1.weight"])


def optimizer_state(state: dict[str, Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = state["optimizer"]["state"]
    return found


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "type": (
        lambda state: state["network"].update({"1.bias": state["network"]["1.bias"].double()}),
        "its 1.bias is float64 [8], not float32 [8]",
    ),
    "shape": (
        lambda state: state["network"].update({"1.bias": torch.zeros(9)}),
        "its 1.bias is float32 [9], not float32 [8]",
    ),
    "broadcast": (
        lambda state: state["network"].update({"1.bias": torch.zeros(1)}),
        "its 1.bias is float32 [1]",
    ),
    "missing tensor": (lambda state: state["network"].pop("1.bias"), "its 1.bias is absent"),
    "further tensor": (
        lambda state: state["network"].update({"9.bias": torch.zeros(1)}),
        "its 9.bias is float32 [1], not absent",
    ),
    "missing part": (lambda state: state.pop("optimizer"), "it has no optimizer"),
    "missing generators": (lambda state: state.pop("generators"), "it has no generators"),
    "missing scheduler": (lambda state: state.update(scheduler=None), "does not fit"),
    "part of another kind": (lambda state: state.update(network=[1, 2]), "does not fit"),
    "momentum's shape": (
        lambda state: optimizer_state(state)[0].update(momentum_buffer=torch.zeros(3)),
        "its momentum_buffer is float32 [3]",
    ),
    "momentum's type": (
        lambda state: optimizer_state(state)[0].update(
            momentum_buffer=optimizer_state(state)[0]["momentum_buffer"].half()
        ),
        "its momentum_buffer is float16",
    ),
    "unknown parameter": (
        lambda state: optimizer_state(state).update({77: {"momentum_buffer": torch.zeros(1)}}),
        "does not fit",
    ),
    "fewer groups": (lambda state: state["optimizer"].update(param_groups=[]), "does not fit"),
    "generator": (lambda state: state["generators"].update(torch=torch.zeros(3)), "does not fit"),
    "python's generator": (lambda state: state["generators"].update(python=(3, 1)), "does not fit"),
    "late part": (
        lambda state: state["experiment"].update(teacher={"weight": torch.zeros(1)}),
        "Momentum.teacher is not there before the first update",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_refused_with_the_reason(
    trained: tuple[dict[str, Any], list[EpochResult]], name: str
) -> None:
    state, history = copy.deepcopy(trained[0]), trained[1]
    change, words = CHANGES[name]
    change(state)
    before = torch.get_rng_state()
    with pytest.raises(CheckpointDamaged) as raised:
        rehearse(begun(), state, history)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_longer_history_than_the_training_is_refused(
    trained: tuple[dict[str, Any], list[EpochResult]],
) -> None:
    history = [EpochResult(epoch, {"train/loss": 1.0}) for epoch in (1, 2, 3)]
    with pytest.raises(CheckpointDamaged, match="it has 3 epochs, the training 2"):
        rehearse(begun(), trained[0], history)
