"""Which batch size does the baseline want at its learning rate of 0.1?

python -m harness.study batch_size_search
"""

from experiments.baseline import Baseline
from harness.search import CategoricalDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"batch_size": CategoricalDistribution([16, 32, 64, 128, 256, 512, 1024])},
    n_trials=20,
)
