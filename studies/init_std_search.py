"""How large should the baseline's initial weights be?

    python -m harness.study init_std_search

Measured with 20 trials of ten epochs, median pruner, two one-thread workers, then n = 5 seeds each
(mean ± standard deviation; paired differences):

- MNIST: init_std = 0.108. Test accuracy 0.9594 ± 0.0012 against 0.9490 ± 0.0014 with the defaults,
  +1.04 points (95% interval +0.87 to +1.21): the difference stands.
- 3,615 images of Fashion-MNIST: init_std = 0.0974. Test accuracy 0.7436 ± 0.0340 against 0.6742 ±
  0.0319 with the defaults, +6.93 points (95% interval +1.30 to +12.56): the difference stands.
"""

from experiments.baseline import Baseline
from harness import FloatDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"init_std": FloatDistribution(1e-4, 1.0, log=True)},
    n_trials=20,
)
