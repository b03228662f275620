"""What can the baseline reach with learning rate, batch size, width and initial weights together?

    python -m harness.study joint_search

Measured with 60 trials of ten epochs, median pruner, one-thread workers (one on MNIST, two on
Fashion-MNIST), then n = 5 seeds each (mean ± standard deviation; paired differences):

- MNIST: lr = 0.382, batch_size = 32, hidden_width = 1017, init_std = 0.015. Test accuracy 0.9849 ±
  0.0008 against 0.9491 ± 0.0014 with the defaults, +3.58 points (95% interval +3.42 to +3.74): the
  difference stands. The best width lies at the edge of its range.
- 3,615 images of Fashion-MNIST: lr = 0.137, batch_size = 128, hidden_width = 300, init_std =
  0.0619. Test accuracy 0.8011 ± 0.0148 against 0.6742 ± 0.0319 with the defaults, +12.69 points
  (95% interval +8.75 to +16.63): the difference stands.
"""

from experiments.baseline import Baseline
from harness import CategoricalDistribution, FloatDistribution, IntDistribution, Study

study = Study(
    experiment=Baseline(),
    space={
        "lr": FloatDistribution(1e-2, 1.0, log=True),
        "batch_size": CategoricalDistribution([32, 64, 128, 256, 512]),
        "hidden_width": IntDistribution(64, 1024, log=True),
        "init_std": FloatDistribution(1e-3, 1.0, log=True),
    },
    n_trials=60,
)
