"""A trained network's predictions and first layer, as plain arrays.

`training` fills them in and `figures` draws them, each without the other's libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The wrong predictions with the highest confidence, in descending order.

    Attributes:
        images: (k, 28, 28), uint8.
        labels: (k,), int64. The true classes.
        predictions: (k,), int64. The predicted classes.
        confidence: (k,), float32 in [0, 1]. Softmax probability of the predicted class.
        positions: (k,), int64. Indices in the evaluation set, from 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    positions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Weights of a network's first layer, one image for each unit (or channel).

    Attributes:
        kind: `linear` with a weight for each pixel, or `convolution` over one grey channel.
        weights: (m, height, width), float32, by descending norm.
        units: (m,), int64. Indices of the units in the layer.
        size: Number of units in the layer; the m with the largest norm are here.
        units_are_classes: Whether the layer is also the last one, so that unit i scores class i.
    """

    kind: Literal["linear", "convolution"]
    weights: NDArray[np.float32]
    units: NDArray[np.int64]
    size: int
    units_are_classes: bool


@dataclass(frozen=True, eq=False)
class Inspection:
    """A trained network's predictions for its n evaluation images, in their order.

    Attributes:
        evaluated_on: The set of the images: `test` or `validation`.
        labels: (n,), int64. The true classes.
        predictions: (n,), int64. The classes with the largest logit.
        confidence: (n,), float32 in [0, 1]. Softmax probability of the predicted class.
        mistakes: The wrong predictions with the highest confidence.
        first_layer: None if the first layer's weights cannot be shown as images.
    """

    evaluated_on: str
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    mistakes: Mistakes
    first_layer: FirstLayer | None
