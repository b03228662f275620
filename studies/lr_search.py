"""Which learning rate does the baseline want, everything else as it is?

python -m harness.study lr_search
"""

from experiments.baseline import Baseline
from harness.search import FloatDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"lr": FloatDistribution(1e-3, 1.0, log=True)},
    n_trials=30,
)
