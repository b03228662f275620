"""A perceptron with one hidden layer, 784-256-10: the plain PyTorch script as parameters.

    python -m harness.run baseline
    python -m harness.run baseline --lr 0.05 --hidden-width 512

Weights start from N(0, init_std), biases from zero; cross-entropy on logits; vanilla SGD.

Expected test accuracy after ten epochs, n = 5 seeds, one CPU thread: 0.9490 ± 0.0014 on MNIST,
0.6742 ± 0.0319 on 3,615 images of Fashion-MNIST (mean ± standard deviation).
"""

from typing import Annotated

from torch import nn

from harness import Count, Experiment, NonNegative


class Baseline(Experiment):
    """The article's multilayer perceptron."""

    hidden_width: Annotated[int, Count] = 256
    """Units of the hidden layer."""
    init_std: Annotated[float, NonNegative] = 0.01
    """Standard deviation of the initial weights."""

    def network(self) -> nn.Module:
        network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, self.hidden_width),
            nn.ReLU(),
            nn.Linear(self.hidden_width, 10),
        )
        return network.apply(self.init_weights)

    def init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=self.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
