"""A small convolutional network on CIFAR-10, with random crops and flips.

    python -m harness.run cifar_convnet

Three stages of two 3x3 convolutions, each halved by max pooling, with batch normalization
(Ioffe and Szegedy, Batch normalization, 2015). Crops after padding by four pixels and horizontal
flips are those of He et al. (Deep residual learning for image recognition, 2015, section 4.2).
torchvision downloads the data set on first use, 170 MB.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from harness import Count, Dataset, Experiment, Fraction, NonNegative, Positive


class CifarConvnet(Experiment):
    """Colour images of 32x32, augmented; SGD with momentum under a cosine schedule."""

    lr: Annotated[float, Positive] = 0.05
    """Learning rate of SGD."""
    batch_size: Annotated[int, Count] = 128
    num_epochs: Annotated[int, Count] = 20
    schedule = "cosine"
    width: Annotated[int, Count] = 32
    """Channels of the first stage; each further one has twice as many."""
    momentum: Annotated[float, Fraction] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, NonNegative] = 5e-4
    """Weight decay of SGD."""
    padding: Annotated[int, NonNegative] = 4
    """Pixels that a random crop may be off the middle; 0 neither crops nor flips."""

    def data(self, root: Path) -> Dataset:
        return Dataset.from_torchvision("CIFAR10", root)

    def augment(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.padding:
            return inputs
        count, _, height, width = inputs.shape
        padded = nn.functional.pad(inputs, [self.padding] * 4)
        # Row and column of each pixel in the padded image, for each image of the batch.
        tops, lefts = torch.randint(2 * self.padding + 1, (2, count, 1))
        rows = tops + torch.arange(height)
        columns = lefts + torch.arange(width)
        flipped = torch.rand(count, 1) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
        image = torch.arange(count)[:, None, None]
        places = (image, rows[:, :, None], columns[:, None, :])
        chosen = padded.permute(0, 2, 3, 1)[tuple(place.to(inputs.device) for place in places)]
        return chosen.permute(0, 3, 1, 2).contiguous()

    def network(self) -> nn.Module:
        layers: list[nn.Module] = []
        before = 3
        for channels in (self.width, 2 * self.width, 4 * self.width):
            for _ in range(2):
                layers += [
                    nn.Conv2d(before, channels, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                before = channels
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 4 * 4, 10))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
