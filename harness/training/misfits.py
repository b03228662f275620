"""A network and data that do not fit together, told in the terms of both."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from harness.base.errors import RunFailed
from harness.training.data_checks import shape_text
from harness.training.dataset import Examples
from harness.training.experiment import Experiment

ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
"""Losses that compare outputs with labels one by one, and spread them over each other's shape."""

ABOUT_SHAPES = re.compile(
    r"shapes? cannot be multiplied|size mismatch|must match the size|expected input|Expected \d|"
    r"output size is too small|bigger than .*input|normalized_shape|running_mean",
    re.IGNORECASE,
)
"""What torch says about inputs of a shape that a layer cannot take."""


def explained_misfit(error: Exception, network: nn.Module, inputs: torch.Tensor) -> Exception:
    """An error of the first update as one that names network and data, if it is about their fit.

    Args:
        inputs: (batch, ...).
    """
    text = str(error).partition("\n")[0]
    if isinstance(error, IndexError) and re.search(r"Target \d+ is out of bounds", text):
        return _misfit(f"gives fewer logits than the data have classes ({text})")
    if "target with class probabilities" in text:
        return _misfit("gives no logits for each class: (batch, classes) are expected")
    if not isinstance(error, RuntimeError) or not ABOUT_SHAPES.search(text):
        return error
    item = tuple(inputs.shape[1:])
    data = shape_text(item)
    first = next((m for m in network.modules() if m._parameters), None)
    if isinstance(first, nn.Linear) and first.in_features not in {math.prod(item), *item[-1:]}:
        return _misfit(f"expects {first.in_features:,} inputs, the data give {data}")
    if isinstance(first, nn.Conv2d) and first.in_channels not in item[:1]:
        channels = "1 channel" if first.in_channels == 1 else f"{first.in_channels} channels"
        return _misfit(f"expects {channels}, the data give {data}")
    return _misfit(f"does not fit the data, which give {data}: {text}")


def built_network(experiment: Experiment) -> nn.Module:
    """The network of an experiment.

    Raises:
        RunFailed: it is none.
    """
    network = experiment.network()
    if not isinstance(network, nn.Module):
        raise RunFailed(
            f"network() of {type(experiment).__name__} must return a torch.nn.Module, but returned "
            f"{network!r}."
        )
    return network


def check_fit(network: nn.Module, examples: Examples) -> None:
    """Check that a network takes the inputs of some examples.

    Raises:
        RunFailed: it does not.
    """
    inputs, _ = examples.batch(torch.arange(min(2, len(examples))))
    try:
        with torch.no_grad():
            network.eval()(inputs)
    except Exception as error:
        explained = explained_misfit(error, network, inputs)
        if explained is not error:
            raise explained from error


def check_outputs(outputs: torch.Tensor, labels: torch.Tensor, loss_fn: nn.Module) -> None:
    """Check that a loss that compares outputs with labels one by one has as many of both.

    Raises:
        RunFailed: torch would compare each output with several labels.
    """
    if isinstance(loss_fn, ELEMENTWISE) and outputs.shape != labels.shape:
        raise _misfit(
            f"gives {_batch_text(outputs)}, the labels are {_batch_text(labels)}: "
            f"{type(loss_fn).__name__} needs one output for each label"
        )


def _misfit(what: str) -> RunFailed:
    return RunFailed(f"the network {what}.")


def _batch_text(tensor: torch.Tensor) -> str:
    return f"({', '.join(['batch', *map(str, tensor.shape[1:])])}{',' if tensor.ndim == 1 else ''})"
