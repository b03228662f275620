"""Vanilla stochastic gradient descent without overhead around the update."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim import optimizer as of_torch


class VanillaSGD(SGD):
    """`torch.optim.SGD(parameters, lr)` to the bit: subtracts `lr` times the gradient.

    An update needs one kernel. Around it, torch's own `step` and `zero_grad` open ranges for a
    profiler and pass through torch's compiler, whose import takes a second. For a small network
    this is a tenth of an epoch (docs/log.md). Hooks, closures, momentum and all other options are
    left to torch.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        if not set_to_none:
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        if closure or self._has_hooks() or not all(map(_is_vanilla, self.param_groups)):
            return _step_of_torch(self, closure)
        with torch.no_grad():
            for group in self.param_groups:
                parameters = [p for p in group["params"] if p.grad is not None]
                if parameters:
                    gradients = [p.grad for p in parameters]
                    torch._foreach_add_(parameters, gradients, alpha=-group["lr"])
        return None

    step.hooked = True  # type: ignore[attr-defined]  # else torch wraps it in what it avoids

    # Without their decorator, which imports torch's compiler.
    add_param_group = inspect.unwrap(SGD.add_param_group)
    state_dict = inspect.unwrap(SGD.state_dict)
    load_state_dict = inspect.unwrap(SGD.load_state_dict)

    def _has_hooks(self) -> bool:
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or of_torch._global_optimizer_pre_hooks
            or of_torch._global_optimizer_post_hooks
        )


_step_of_torch: Callable[..., float | None] = (
    SGD.step if hasattr(SGD.step, "hooked") else Optimizer.profile_hook_step(SGD.step)
)


def _is_vanilla(group: dict[str, Any]) -> bool:
    # A fused kernel, which a loaded state may name, has other bits on some devices.
    options = ("momentum", "weight_decay", "maximize", "differentiable", "fused")
    return not any(group[option] for option in options)
