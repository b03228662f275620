"""Which searched parameters matter."""

from __future__ import annotations

import warnings

from harness.search import trial_queue
from harness.search.storage import StoredStudy

FEWEST_TRIALS = 20
"""With fewer completed trials an importance is noise."""


def importances(stored: StoredStudy) -> dict[str, float]:
    """Importance of each parameter by PED-ANOVA; empty for one, or with too few completed trials.

    In a conditional space: of the parameters that all completed trials have.
    """
    trials = trial_queue.completed(stored)
    shared = [n for n in (trials[0].params if trials else ()) if all(n in t.params for t in trials)]
    if len(shared) < 2 or len(trials) < FEWEST_TRIALS:
        return {}
    # Optuna imports scikit-learn and pandas for this, which takes as long as a small study.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(stored, evaluator=PedAnovaImportanceEvaluator(), params=shared)
