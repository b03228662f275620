"""Averaged weights: a running mean of the parameters that leaves the training's bits alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

AverageName = Literal["off", "last-epoch", "ema"]


class WeightAverage:
    """The running mean a += (p - a) / k of a network's parameters p, one step an update.

    For `last-epoch`, k counts the updates of the epoch: the mean of its weights. For `ema`, k
    counts all updates up to those of one epoch and then stays: an exponential moving average whose
    memory is an epoch, whatever the batch size. Until it has seen an epoch it is a plain mean, so
    the initial weights have no part in it.
    """

    def __init__(
        self, network: nn.Module, kind: Literal["last-epoch", "ema"], updates_per_epoch: int
    ) -> None:
        self._parameters = {
            name: parameter.detach()
            for name, parameter in network.named_parameters()
            if parameter.is_floating_point() or parameter.is_complex()
        }
        self._kind, self._memory = kind, updates_per_epoch
        self._means = {name: p.clone() for name, p in self._parameters.items()}
        self._updates = 0

    def begin_epoch(self) -> None:
        """Forget what the average does not reach back to."""
        if self._kind == "last-epoch":
            self._updates = 0

    def add(self) -> None:
        """Take the parameters as an update has left them."""
        self._updates += 1
        if not self._parameters:
            return
        means, parameters = list(self._means.values()), list(self._parameters.values())
        if self._updates == 1:
            torch._foreach_copy_(means, parameters)
        else:
            torch._foreach_lerp_(means, parameters, 1 / min(self._updates, self._memory))

    def write(self) -> None:
        """Write the average over the network's parameters."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self._means[name])

    def state_dict(self) -> dict[str, Any]:
        """The average, and how many updates it has seen."""
        return {"updates": self._updates, "means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._updates = state["updates"]
        for name, mean in self._means.items():
            mean.copy_(state["means"][name])


def recompute_batch_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the statistics of batch normalisations by those of the network as it is now.

    They are means over the batches, as by `torch.optim.swa_utils.update_bn`; but all else is in
    evaluation mode, in which the statistics are used: no dropout.

    Args:
        batches: inputs (b, ...).
    """
    network.train()
    # One that stays in evaluation mode is frozen.
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    norms = [norm for norm in norms if norm.running_mean is not None]
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count the same
        norm.train()
    try:
        for inputs in batches:
            network(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
