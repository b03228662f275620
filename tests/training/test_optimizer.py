"""Vanilla SGD updates to the bits of torch's own, and leaves to torch what is more than vanilla."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from harness.training.optimizer import VanillaSGD

SHAPES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=4)
RATES = st.floats(min_value=1e-6, max_value=10, allow_subnormal=False)


def parameters_of(shapes: list[list[int]], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def draw_gradients(parameters: list[nn.Parameter], seed: int, missing: int = -1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for number, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if number == missing else gradient


def same_steps(
    shapes: list[list[int]],
    make: Callable[[Any], Optimizer],
    change: Callable[[Optimizer], None] = lambda _: None,
    missing: int = -1,
) -> None:
    """Five steps of both, compared bit by bit after each."""
    ours, theirs = parameters_of(shapes), parameters_of(shapes)
    optimizers = VanillaSGD(ours, lr=0.1), make(theirs)
    for optimizer in optimizers:
        change(optimizer)
    for seed in range(5):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            draw_gradients(parameters, seed, missing)
            optimizer.step()
        assert all(map(torch.equal, ours, theirs))


@given(shapes=SHAPES, lr=RATES, missing=st.integers(-1, 3))
def test_a_step_has_the_bits_of_torchs_sgd(
    shapes: list[list[int]], lr: float, missing: int
) -> None:
    def change(optimizer: Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = lr

    same_steps(shapes, lambda parameters: torch.optim.SGD(parameters, lr=0.1), change, missing)


def test_each_group_has_its_own_learning_rate() -> None:
    def change(optimizer: Optimizer) -> None:
        optimizer.add_param_group({"params": parameters_of([[7]], seed=1), "lr": 0.5})

    ours, theirs = parameters_of([[5, 3], [5]]), parameters_of([[5, 3], [5]])
    optimizers = VanillaSGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for optimizer in optimizers:
        change(optimizer)
        draw_gradients([p for g in optimizer.param_groups for p in g["params"]], seed=3)
        optimizer.step()
    ours, theirs = (
        [p for g in optimizer.param_groups for p in g["params"]] for optimizer in optimizers
    )
    assert len(ours) == 3
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"fused": True},
        {"lr": torch.tensor(0.2)},
    ],
    ids=str,
)
def test_an_option_that_is_set_later_counts(options: dict[str, Any]) -> None:
    """As schedules set it that move the momentum along with the learning rate."""
    same_steps(
        [[6, 4], [3]],
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda optimizer: optimizer.param_groups[0].update(options),
    )


def test_hooks_are_called_before_and_after_each_step() -> None:
    parameters = parameters_of([[3]])
    optimizer, heard = VanillaSGD(parameters, lr=0.1), []
    before = parameters[0].detach().clone()

    def hear(name: str) -> Callable[..., None]:
        return lambda *_: heard.append((name, torch.equal(parameters[0], before)))

    handles = [
        optimizer.register_step_pre_hook(hear("pre")),
        optimizer.register_step_post_hook(hear("post")),
        register_optimizer_step_pre_hook(hear("global pre")),
        register_optimizer_step_post_hook(hear("global post")),
    ]
    draw_gradients(parameters, 0)
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert heard == [("global pre", True), ("pre", True), ("post", False), ("global post", False)]


def test_a_closure_is_evaluated_and_its_loss_returned() -> None:
    (parameter,) = parameters_of([[3]])
    before = parameter.detach().clone()
    optimizer = VanillaSGD([parameter], lr=0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == before.sum().item()
    assert torch.equal(parameter, before - 0.5)


def test_gradients_are_dropped_or_zeroed() -> None:
    parameters = parameters_of([[3], [2]])
    optimizer = VanillaSGD(parameters, lr=0.1)
    draw_gradients(parameters, 0)
    optimizer.zero_grad(set_to_none=False)
    assert [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None] == [
        [0, 0, 0],
        [0, 0],
    ]
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in parameters)


def test_the_state_is_torchs_own() -> None:
    parameters = parameters_of([[3]])
    ours, theirs = VanillaSGD(parameters, lr=0.1), torch.optim.SGD(parameters, lr=0.3, fused=True)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert theirs.state_dict() == ours.state_dict()
    theirs.param_groups[0]["lr"] = 0.7
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.7


@pytest.mark.processes
def test_a_training_imports_no_compiler() -> None:
    """Its import takes as long as half of torch's, in every worker of a study."""
    script = (
        "import sys, torch\n"
        "from experiments.baseline import Baseline\n"
        "from harness.execution.preparation import DataSource\n"
        "from harness.training.device import Execution\n"
        "prepared = DataSource(None).prepare(Baseline(dataset='digits', num_epochs=1))\n"
        "training = prepared.training(Execution(threads=1), torch.device('cpu'))\n"
        "assert len(list(training.epochs())) == 1\n"
        "training.restore(training.state(), training.history)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
