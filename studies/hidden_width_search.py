"""How wide should the baseline's hidden layer be?

python -m harness.study hidden_width_search
"""

from experiments.baseline import Baseline
from harness.search import IntDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"hidden_width": IntDistribution(16, 1024, log=True)},
    n_trials=20,
)
