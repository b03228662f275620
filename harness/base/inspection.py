"""A trained network's predictions and first layer, as plain arrays.

`training` fills them in and `figures` draws them, each without the other's libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The wrong predictions with the highest confidence, in descending order.

    Attributes:
        images: (k, height, width) or, in colour, (k, height, width, 3), uint8; None if the inputs
            are no images.
        labels: (k,), int64. The true classes.
        predictions: (k,), int64. The predicted classes.
        confidence: (k,), float32 in [0, 1]. Softmax probability of the predicted class.
        positions: (k,), int64. Indices in the evaluation set, from 0.
    """

    images: NDArray[np.uint8] | None
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    positions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PredictedClasses:
    """Predicted classes of n examples, in their order.

    Attributes:
        names: Of the classes, by label. Further outputs of the network go by their numbers.
        labels: (n,), int64. The true classes.
        predictions: (n,), int64. The classes with the largest logit.
        confidence: (n,), float32 in [0, 1]. Softmax probability of the predicted class.
        mistakes: The wrong predictions with the highest confidence.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float32]
    mistakes: Mistakes


@dataclass(frozen=True, eq=False)
class PredictedNumbers:
    """Predicted numbers of n examples, in their order.

    Attributes:
        labels: (n, k), float32. The true numbers.
        predictions: (n, k), float32.
    """

    labels: NDArray[np.float32]
    predictions: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Weights of a network's first layer, one image for each unit (or channel).

    Attributes:
        kind: `linear` with a weight for each pixel, or `convolution`.
        weights: (m, height, width), float32, by descending norm; of a layer that sees colours,
            (m, height, width, 3).
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
    """What a trained network makes of its n evaluation examples.

    Attributes:
        evaluated_on: The set of the examples: `test` or `validation`.
        size: n.
        predicted: None if the outputs are neither logits of classes nor numbers of the labels'
            shape.
        first_layer: None if the first layer's weights cannot be shown as images.
    """

    evaluated_on: str
    size: int
    predicted: PredictedClasses | PredictedNumbers | None
    first_layer: FirstLayer | None


def as_picture(channels_first: NDArray[Any]) -> NDArray[Any]:
    """Images (k, c, height, width) as they are drawn: (k, height, width), or with 3 colours last.

    >>> as_picture(np.zeros((2, 1, 28, 28))).shape, as_picture(np.zeros((2, 3, 8, 9))).shape
    ((2, 28, 28), (2, 8, 9, 3))
    """
    return (
        channels_first[:, 0]
        if channels_first.shape[1] == 1
        else channels_first.transpose(0, 2, 3, 1)
    )
