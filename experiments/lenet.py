"""LeNet-5 with ReLU and max pooling: a small convolutional network.

    python -m harness.run lenet

Two convolutions with pooling, then 400-120-84-10 (LeCun et al., Gradient-based learning applied to
document recognition, 1998; with ReLU for the sigmoid and max for average pooling).

Expected test accuracy after ten epochs, n = 5 seeds, one CPU thread: 0.9822 ± 0.0045 on MNIST,
0.4436 ± 0.1173 on 3,615 images of Fashion-MNIST (mean ± standard deviation).

Where torchmetrics is installed (`pip install torchmetrics`), the macro-averaged F1 score is
measured as well.
"""

from importlib.util import find_spec
from typing import Annotated

from torch import nn

from harness import Count, Experiment, Metric


class LeNet(Experiment):
    """Convolutions of 6 and 16 channels, then three linear layers."""

    channels: Annotated[int, Count] = 6
    """Channels of the first convolution; the second has 16 for every 6 of them, rounded down."""

    @property
    def second_channels(self) -> int:
        """Channels of the second convolution."""
        return max(1, self.channels * 16 // 6)

    def metrics(self) -> dict[str, Metric]:
        measured = super().metrics()
        if find_spec("torchmetrics"):
            # Imported here: it takes seconds, and only a training needs it.
            from torchmetrics.classification import MulticlassF1Score

            measured["macro_f1"] = Metric(lambda: MulticlassF1Score(num_classes=10), best="max")
        return measured

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, self.channels, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(self.channels, self.second_channels, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(self.second_channels * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )
