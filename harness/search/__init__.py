"""Studies: their declaration, their trials, their storage. Only this package imports Optuna."""

from optuna import logging
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from harness.search.objective import Objective
from harness.search.study import Study

__all__ = [
    "CategoricalDistribution",
    "FloatDistribution",
    "FrozenTrial",
    "IntDistribution",
    "Objective",
    "Study",
    "Trial",
]

logging.set_verbosity(logging.ERROR)  # the harness reports what happens
