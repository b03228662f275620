"""Which of the searched parameters matter."""

from __future__ import annotations

import warnings

from harness.search import trial_queue
from harness.search.storage import StoredStudy

FEWEST_TRIALS = 20
"""With fewer completed trials, importances are noise."""


def importances(stored: StoredStudy) -> dict[str, float]:
    """The importance of each parameter for the first objective by PED-ANOVA, the largest first.

    Covers the parameters that all completed trials have. Returns an empty dict if fewer than two
    parameters or fewer than `FEWEST_TRIALS` completed trials are left.
    """
    trials = trial_queue.completed(stored)
    shared = [n for n in (trials[0].params if trials else ()) if all(n in t.params for t in trials)]
    if len(shared) < 2 or len(trials) < FEWEST_TRIALS:
        return {}
    # Imported here because it loads scikit-learn and pandas, as slow as a small study.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = (lambda trial: trial.values[0]) if len(stored.directions) > 1 else None
        return get_param_importances(
            stored, evaluator=PedAnovaImportanceEvaluator(), params=shared, target=target
        )
