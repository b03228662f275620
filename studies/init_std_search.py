"""How large should the baseline's initial weights be?

python -m harness.study init_std_search
"""

from experiments.baseline import Baseline
from harness.search import FloatDistribution, Study

study = Study(
    experiment=Baseline(),
    space={"init_std": FloatDistribution(1e-4, 1.0, log=True)},
    n_trials=20,
)
