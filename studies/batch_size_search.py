"""Which batch size does the baseline want at its learning rate of 0.1?

    python -m harness.study batch_size_search

Measured with 20 trials of ten epochs, median pruner, two one-thread workers, then n = 5 seeds each
(mean ± standard deviation; paired differences):

- MNIST: batch_size = 16. Test accuracy 0.9818 ± 0.0009 against 0.9490 ± 0.0014 with the defaults,
  +3.28 points (95% interval +3.10 to +3.46): the difference stands.
- 3,615 images of Fashion-MNIST: batch_size = 128. Test accuracy 0.7284 ± 0.0233 against 0.6742 ±
  0.0319 with the defaults, +5.42 points (95% interval +1.72 to +9.12): the difference stands.
"""

from experiments.baseline import Baseline
from harness import CategoricalDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"batch_size": CategoricalDistribution([16, 32, 64, 128, 256, 512, 1024])},
    n_trials=20,
)
