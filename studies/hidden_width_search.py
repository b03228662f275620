"""How wide should the baseline's hidden layer be?

    python -m harness.study hidden_width_search

Measured with 20 trials of ten epochs, median pruner, two one-thread workers, then n = 5 seeds each
(mean ± standard deviation; paired differences):

- MNIST: hidden_width = 925. Test accuracy 0.9529 ± 0.0004 against 0.9490 ± 0.0014 with the
  defaults, +0.38 points (95% interval +0.22 to +0.55): the difference stands. The best value lies
  at the edge of the range.
- 3,615 images of Fashion-MNIST: hidden_width = 1000. Test accuracy 0.7038 ± 0.0330 against 0.6742 ±
  0.0319 with the defaults, +2.96 points (95% interval -0.18 to +6.09): whether it is better cannot
  be told. The best value lies at the edge of the range.
"""

from experiments.baseline import Baseline
from harness import IntDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"hidden_width": IntDistribution(16, 1024, log=True)},
    n_trials=20,
)
