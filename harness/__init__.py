"""An experiment-tracking research harness for small PyTorch models.

An experiment file and a study file import what they need from here:

    from harness import Count, Experiment, Positive
    from harness import FloatDistribution, Study

So do scripts and notebooks:

    import harness

    harness.run_experiment(Baseline(lr=0.05))
    harness.runs("baseline")        # one row per run, as a pandas DataFrame
    harness.epochs("baseline")      # one row per run, epoch and metric
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution as CategoricalDistribution
    from optuna.distributions import FloatDistribution as FloatDistribution
    from optuna.distributions import IntDistribution as IntDistribution

    from harness.api import run_experiment as run_experiment
    from harness.api import run_study as run_study
    from harness.base.fields import Count as Count
    from harness.base.fields import Fraction as Fraction
    from harness.base.fields import NonNegative as NonNegative
    from harness.base.fields import Positive as Positive
    from harness.base.fields import Seed as Seed
    from harness.execution.trained_network import load_model as load_model
    from harness.search.objective import Objective as Objective
    from harness.search.study import Study as Study
    from harness.tracking.frames import epochs as epochs
    from harness.tracking.frames import runs as runs
    from harness.training.dataset import Dataset as Dataset
    from harness.training.experiment import Experiment as Experiment
    from harness.training.metrics import Metric as Metric

_MODULES = {
    "CategoricalDistribution": "harness.search",
    "Count": "harness.base.fields",
    "Dataset": "harness.training.dataset",
    "Experiment": "harness.training.experiment",
    "FloatDistribution": "harness.search",
    "Fraction": "harness.base.fields",
    "IntDistribution": "harness.search",
    "Metric": "harness.training.metrics",
    "NonNegative": "harness.base.fields",
    "Objective": "harness.search",
    "Positive": "harness.base.fields",
    "Seed": "harness.base.fields",
    "Study": "harness.search",
    "epochs": "harness.tracking.frames",
    "load_model": "harness.execution.trained_network",
    "run_experiment": "harness.api",
    "run_study": "harness.api",
    "runs": "harness.tracking.frames",
}
"""The module of each public name."""

__all__ = list(_MODULES)


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        """Import a public name on first use: listings and help need neither torch nor pandas."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
