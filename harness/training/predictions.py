"""Inspects a trained network: its predictions, its most confident mistakes, its first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.base.inspection import (
    FirstLayer,
    Inspection,
    Mistakes,
    PredictedClasses,
    PredictedNumbers,
    as_picture,
)
from harness.training.dataset import Examples
from harness.training.loop import Training

UNITS_SHOWN = 64
"""The most units of the first layer that an inspection keeps."""


@torch.no_grad()
def inspect(training: Training, classes: Sequence[str] | None, mistakes: int = 24) -> Inspection:
    """Predict the evaluation examples once, in evaluation mode, and keep what figures need.

    The batches are those of `Training.evaluate`, so the predictions are those that the last epoch's
    metrics measured. Nothing is drawn from a random generator.

    Args:
        classes: their names; None if numbers are predicted.
        mistakes: how many wrong predictions to keep, the most confident ones.
    """
    training.network.eval()
    evaluation = training.evaluation_examples
    seen = _class_predictions if classes is not None else _numbers
    parts = [
        seen(training.network(inputs), labels)
        for inputs, labels in evaluation.batches(training.experiment.batch_size)
    ]
    # Read once, after the pass: reading batch by batch would make the host wait for the device.
    arrays = [torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)]
    predicted: PredictedClasses | PredictedNumbers | None = None
    if arrays and classes is not None:
        predicted = _predicted_classes(classes, arrays, evaluation, mistakes)
    elif arrays:
        predicted = PredictedNumbers(*arrays)
    return Inspection(
        evaluated_on=training.evaluated_on,
        size=len(evaluation),
        predicted=predicted,
        first_layer=_first_layer(training.network, evaluation),
    )


def _class_predictions(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """True classes, predicted ones, and their probability; nothing if there are no logits."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        return ()
    best = logits.argmax(dim=1)
    sure = logits.float().softmax(dim=1).gather(1, best[:, None])[:, 0]
    return labels, best, sure


def _numbers(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """True and predicted numbers, (b, k); nothing if the shapes differ."""
    if outputs.shape != labels.shape:
        return ()
    return labels.float().reshape(len(labels), -1), outputs.float().reshape(len(labels), -1)


def _predicted_classes(
    names: Sequence[str],
    arrays: Sequence[NDArray[Any]],
    evaluation: Examples,
    mistakes: int,
) -> PredictedClasses:
    labels, predictions, confidence = arrays
    wrong = np.flatnonzero(predictions != labels)
    # The stable order puts ties in the order of the set, and NaN last.
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")[:mistakes]]
    return PredictedClasses(
        names=tuple(names),
        labels=labels,
        predictions=predictions,
        confidence=confidence,
        mistakes=Mistakes(
            images=_pictures(evaluation, surest) if evaluation.are_images else None,
            labels=labels[surest],
            predictions=predictions[surest],
            confidence=confidence[surest],
            positions=surest,
        ),
    )


def _pictures(examples: Examples, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images at `positions`, (k,), of a set."""
    rows = torch.from_numpy(positions).to(examples.inputs.device)
    if examples.rows is not None:
        rows = examples.rows.index_select(0, rows)
    return as_picture(examples.inputs.index_select(0, rows).cpu().numpy())


def _first_layer(network: nn.Module, examples: Examples) -> FirstLayer | None:
    """The weights of the first module, in order of definition, that has parameters of its own."""
    layers = [
        module
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    first = layers[0] if layers else None
    item = examples.item_shape
    kind: Literal["linear", "convolution"]
    if not examples.are_images:
        return None
    if isinstance(first, nn.Linear) and first.in_features == math.prod(item):
        kind, weights = "linear", first.weight.view(-1, *item)
    elif isinstance(first, nn.Conv2d) and first.in_channels == item[0]:
        kind, weights = "convolution", first.weight
    else:
        return None
    every = weights.float().cpu()
    units = every.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:UNITS_SHOWN]
    return FirstLayer(
        kind=kind,
        weights=as_picture(every.index_select(0, units).numpy()),
        units=units.numpy(),
        size=len(every),
        units_are_classes=kind == "linear" and len(layers) == 1,
    )
