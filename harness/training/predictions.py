"""Inspects a trained network: its predictions, its most confident mistakes, its first layer."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.base.inspection import FirstLayer, Inspection, Mistakes
from harness.training.datasets import PIXELS, SIDE, Images
from harness.training.loop import Training

UNITS_SHOWN = 64
"""The most units of the first layer that an inspection keeps."""


@torch.no_grad()
def inspect(training: Training, mistakes: int = 24) -> Inspection:
    """Predict the evaluation images once, in evaluation mode, and keep what figures need.

    The batches are those of `Training.evaluate`, so the predictions are those that the last epoch's
    accuracy counted. Nothing is drawn from a random generator.

    Args:
        mistakes: how many wrong predictions to keep as images, the most confident ones.
    """
    training.network.eval()
    evaluation = training.evaluation_images
    predicted, sure, true = [], [], []
    for images, labels in evaluation.batches(training.experiment.batch_size):
        logits = training.network(images)
        best = logits.argmax(dim=1)
        predicted.append(best)
        sure.append(logits.float().softmax(dim=1).gather(1, best[:, None])[:, 0])
        true.append(labels)
    # Read once, after the pass: reading batch by batch would make the host wait for the device.
    predictions, confidence, labels_of_all = (
        torch.cat(parts).cpu().numpy() for parts in (predicted, sure, true)
    )
    wrong = np.flatnonzero(predictions != labels_of_all)
    # The stable order puts ties in the order of the set, and NaN last.
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")[:mistakes]]
    return Inspection(
        evaluated_on=training.evaluated_on,
        labels=labels_of_all,
        predictions=predictions,
        confidence=confidence,
        mistakes=Mistakes(
            images=_pixels(evaluation, surest),
            labels=labels_of_all[surest],
            predictions=predictions[surest],
            confidence=confidence[surest],
            positions=surest,
        ),
        first_layer=_first_layer(training.network),
    )


def _pixels(images: Images, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images (k, 28, 28) at `positions`, (k,), of a set."""
    rows = torch.from_numpy(positions).to(images.pixels.device)
    if images.rows is not None:
        rows = images.rows.index_select(0, rows)
    pixels: NDArray[np.uint8] = images.pixels.index_select(0, rows).cpu().numpy()
    return pixels.reshape(-1, SIDE, SIDE)


def _first_layer(network: nn.Module) -> FirstLayer | None:
    """The weights of the first module, in order of definition, that has parameters of its own."""
    layers = [
        module
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    first = layers[0] if layers else None
    kind: Literal["linear", "convolution"]
    if isinstance(first, nn.Linear) and first.in_features == PIXELS:
        kind, weights = "linear", first.weight.view(-1, SIDE, SIDE)
    elif isinstance(first, nn.Conv2d) and first.in_channels == 1:
        kind, weights = "convolution", first.weight[:, 0]
    else:
        return None
    every = weights.float().cpu()
    units = every.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:UNITS_SHOWN]
    return FirstLayer(
        kind=kind,
        weights=every.index_select(0, units).numpy(),
        units=units.numpy(),
        size=len(every),
        units_are_classes=kind == "linear" and len(layers) == 1,
    )
