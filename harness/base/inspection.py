"""What a look at a trained network finds, as plain arrays: the training's side fills it in, the
tracking's side draws it, and neither needs the other's libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The wrong predictions that the network was surest of, the surest first.

    Attributes:
        images: (k, 28, 28), uint8.
        labels: (k,), int64: the true classes.
        predictions: (k,), int64: the classes predicted instead.
        confidence: (k,), float32 in [0, 1]: softmax of the predictions.
        positions: (k,), int64: places in the evaluation set, from 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    positions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Weights of a network's first layer that are images: one a unit (or channel).

    Attributes:
        kind: `linear` with a weight for each pixel, or `convolution` of the one grey channel.
        weights: (m, height, width), float32; the largest norm first.
        units: (m,), int64: which of the layer's units these are.
        size: units in the layer, of which these are the m with the largest norm.
        units_are_classes: whether the layer is also the last one, so that unit i votes for class i.
    """

    kind: Literal["linear", "convolution"]
    weights: NDArray[np.float32]
    units: NDArray[np.int64]
    size: int
    units_are_classes: bool


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a trained network makes of its n evaluation images, in their order.

    Attributes:
        evaluated_on: which set the images are: `test` or `validation`.
        labels: (n,), int64: the true classes.
        predictions: (n,), int64: the classes with the largest logit.
        confidence: (n,), float32 in [0, 1]: softmax of the predictions.
        mistakes: the surest of the wrong predictions.
        first_layer: None where the first layer's weights are no images.
    """

    evaluated_on: str
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    mistakes: Mistakes
    first_layer: FirstLayer | None
