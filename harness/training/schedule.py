"""Learning rate schedules: warm-up, then constant, linear or cosine, stepped after each update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

ScheduleName = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate, by the number of updates made so far.

    It rises linearly over the warm-up, then stays or falls to its final value, which the last
    update nearly reaches. The cosine is that of Loshchilov and Hutter, SGDR: Stochastic Gradient
    Descent with Warm Restarts (2017), without restarts.

    Attributes:
        num_updates: updates of the whole training.
        warmup: how many of them are the warm-up.
        final: the factor after the last update.
    """

    name: ScheduleName
    num_updates: int
    warmup: float = 0.0
    final: float = 0.0

    def __call__(self, update: int) -> float:
        """The factor of an update, counted from 0."""
        if update < self.warmup:
            return (update + 1) / (self.warmup + 1)
        share = min(1.0, (update - self.warmup) / max(1.0, self.num_updates - self.warmup))
        if self.name == "linear":
            return 1 - (1 - self.final) * share
        if self.name == "cosine":
            return self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2
        return 1.0

    def of(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule as a scheduler of an optimizer's learning rate."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self)
