"""What is searched: studies as declarations, and the one place that knows Optuna.

from harness.search import FloatDistribution, Study
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from harness.search.study import Study

__all__ = ["CategoricalDistribution", "FloatDistribution", "IntDistribution", "Study", "Trial"]
