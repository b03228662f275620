"""A study as plain data: what its storage alone can tell."""

from __future__ import annotations

from typing import Any

from harness.search import trial_queue
from harness.search.storage import StoredStudy
from harness.search.study import edge_warnings


def summary(stored: StoredStudy) -> dict[str, Any]:
    """The declaration, the counts of trials by outcome, the best trial and its warnings.

    `best` is None where no trial was completed; `defaults` are the parameters of trial 0.
    """
    trials, best = stored.get_trials(deepcopy=False), trial_queue.best(stored)
    declaration = stored.user_attrs["declaration"]
    return {
        "study": stored.study_name,
        "declaration": {name: declaration[name] for name in ("experiment", "fields", "space")},
        "defaults": trials[0].params if trials else {},
        **declaration["search"],
        "counts": vars(trial_queue.count(trials)),
        "best": best
        and {
            "trial": best.number,
            "parameters": best.params,
            "validation_accuracy": best.value,
        },
        "warnings": edge_warnings(best) if best else [],
    }
