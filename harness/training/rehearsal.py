"""A rehearsal of going on: whether a checkpoint fits the training that is to go on from it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from harness.training.checkpoint import CheckpointDamaged
from harness.training.loop import EpochResult, Training

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""The type and shape of each tensor, by its name."""


def rehearse(training: Training, state: dict[str, Any], history: list[EpochResult]) -> None:
    """Restore a training that nobody needs afterwards, and look at what would be restored.

    `load_state_dict` alone converts other types without a word, and optimizers take any shape.

    Args:
        training: one that has not begun.

    Raises:
        CheckpointDamaged: the state is of another training; the message says in what it differs.
    """
    if len(history) > training.experiment.num_epochs:
        raise CheckpointDamaged(
            f"it has {len(history)} epochs, the training {training.experiment.num_epochs}"
        )
    expected = training.state()
    for name in expected:
        if name not in state:
            raise CheckpointDamaged(f"it has no {name}")
    try:
        for name in ("network", "buffers", "loss"):
            _compare(_layout(state[name]), _layout(expected[name]))
        if best := _layout(state.get("best", {})):
            _compare(best, _layout(expected["network"]))
        if average := expected.get("average"):
            _compare(_layout(state["average"]["means"]), _layout(average["means"]))
        for name, part in expected["experiment"].items():
            _compare(_layout(state["experiment"][name]), _layout(part))
        if late := state["experiment"].keys() - expected["experiment"].keys():
            raise CheckpointDamaged(
                f"{type(training.experiment).__name__}.{min(late)} is not there before the first "
                "update: make it in network()"
            )
        updated = _updated_optimizer(training)
        training.restore(state, history)
        for index, entry in state["optimizer"]["state"].items():
            if updated:
                _compare(_layout(entry), updated[index])
        with training.generators.active():
            pass
    except CheckpointDamaged:
        raise
    except Exception as error:  # load_state_dict gives up on foreign content in many ways
        reason = str(error).strip().split("\n")[-1].strip() or type(error).__name__
        raise CheckpointDamaged(f"it does not fit the training ({reason})") from None


def _layout(tensors: dict[str, Any]) -> Layout:
    return {
        name: (value.dtype, tuple(value.shape))
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor)
    }


def _compare(saved: Layout, expected: Layout) -> None:
    for name in sorted(saved.keys() | expected.keys()):
        then, now = (_words(layout.get(name)) for layout in (saved, expected))
        if then != now:
            raise CheckpointDamaged(f"its {name} is {then}, not {now}")


def _words(tensor: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    if tensor is None:
        return "absent"
    dtype, shape = tensor
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _updated_optimizer(training: Training) -> dict[int, Layout]:
    """What an optimizer keeps of each parameter after its first step; empty if that is unknown."""
    for parameter in training.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with contextlib.suppress(Exception), training.generators.active():  # it may need a closure
        training.optimizer.step()
        state = training.optimizer.state_dict()["state"]
        return {index: _layout(entry) for index, entry in state.items()}
    return {}
