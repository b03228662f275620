"""Which learning rate does the baseline want, everything else as it is?

    python -m harness.study lr_search

Measured with 30 trials of ten epochs, median pruner, two one-thread workers, then n = 5 seeds each
(mean ± standard deviation; paired differences):

- MNIST: lr = 0.671. Test accuracy 0.9774 ± 0.0036 against 0.9490 ± 0.0014 with the defaults, +2.84
  points (95% interval +2.45 to +3.23): the difference stands.
- 3,615 images of Fashion-MNIST: lr = 0.424. Test accuracy 0.6980 ± 0.0353 against 0.6742 ± 0.0319
  with the defaults, +2.38 points (95% interval -3.10 to +7.85): whether it is better cannot be
  told.
"""

from experiments.baseline import Baseline
from harness import FloatDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"lr": FloatDistribution(1e-3, 1.0, log=True)},
    n_trials=30,
)
