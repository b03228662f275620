"""An update as a captured CUDA graph: one launch per batch instead of one per kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

Update = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Takes inputs and labels of a batch; returns the logits and the loss from before the update."""

WARM_UP_UPDATES = 3
"""Eager updates before a capture, so that libraries have made their plans and workspaces."""


def captured(
    eager: Update,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    keeps_state: Callable[[], bool],
) -> Update:
    """An update that replays a CUDA graph for batches of the size of `inputs`.

    Smaller batches stay eager. Every batch stays eager, with a warning, if `inputs` are not on a
    CUDA device, if the capture fails, or if the optimizer keeps state or follows a schedule: a
    graph would freeze the learning rate and hide its own copy of the state.

    Args:
        keeps_state: whether the optimizer keeps state or follows a schedule; asked after a few
            eager updates. The caller undoes these updates.
    """
    if inputs.device.type != "cuda":
        warnings.warn("capture_graph needs CUDA: the updates stay eager", stacklevel=2)
        return eager
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_UPDATES):
                eager(inputs, labels)
        if keeps_state():
            raise RuntimeError("the optimizer keeps state or follows a schedule")
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits, loss = eager(inputs, labels)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"capture_graph failed, updates stay eager: {reason}", stacklevel=2)
        return eager

    def replay(
        batch_inputs: torch.Tensor, batch_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if len(batch_labels) != len(labels):
            return eager(batch_inputs, batch_labels)
        inputs.copy_(batch_inputs)
        labels.copy_(batch_labels)
        graph.replay()
        # The next replay overwrites both, and a metric may keep its batches.
        return logits.detach().clone(), loss.detach().clone()

    return replay
