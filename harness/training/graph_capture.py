"""The update as a captured CUDA graph: one launch a batch instead of one a kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from harness.training.loop import Training

Update = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

WARM_UP_UPDATES = 3
"""Eager updates before a capture, so that libraries have made their plans and workspaces."""


def captured(training: Training) -> Update:
    """The training's update, replayed from a CUDA graph for full batches.

    The last, smaller batch of an epoch stays eager. All of them do, with a warning, where there is
    no CUDA, where a capture fails, and where the optimizer keeps state or follows a schedule (a
    graph would freeze the learning rate and hide its own copy of the state). Warm-up and capture
    leave weights and generators untouched.
    """

    def eager(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        experiment = training.experiment
        return experiment.update(
            training.network, training.loss_fn, training.optimizer, images, labels
        )

    if training.device.type != "cuda":
        warnings.warn("capture_graph needs CUDA: the updates stay eager", stacklevel=2)
        return eager
    size = min(training.experiment.batch_size, len(training.train_images))
    positions = torch.arange(size, device=training.device)
    images, labels = (tensor.clone() for tensor in training.train_images.batch(positions))
    before = training.state()
    saved = {name: tensor.clone() for name, tensor in before["network"].items()}
    training.network.train()
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_UPDATES):
                eager(images, labels)
        if training.scheduler or any(training.optimizer.state.values()):
            raise RuntimeError("the optimizer keeps state or follows a schedule")
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits, loss = eager(images, labels)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"capture_graph failed, updates stay eager: {reason}", stacklevel=2)
        return eager
    finally:
        training.restore(before | {"network": saved})

    def replay(
        batch_images: torch.Tensor, batch_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if len(batch_labels) != size:
            return eager(batch_images, batch_labels)
        images.copy_(batch_images)
        labels.copy_(batch_labels)
        graph.replay()
        return logits, loss.detach().clone()

    return replay
