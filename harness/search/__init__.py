"""What is searched: studies as declarations, and the one place that knows Optuna.

from harness.search import FloatDistribution, Study
"""

from optuna import logging
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from harness.search.study import Study

__all__ = [
    "CategoricalDistribution",
    "FloatDistribution",
    "FrozenTrial",
    "IntDistribution",
    "Study",
    "Trial",
]

logging.set_verbosity(logging.ERROR)  # the harness says itself what happens
