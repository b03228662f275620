"""An experiment-tracking research harness for small PyTorch models.

In Python and in notebooks:

    import harness
    harness.runs("baseline")              # one row a run, as a pandas DataFrame
    harness.epochs("baseline")            # one row a run and epoch and metric
    harness.run_experiment(Baseline(lr=0.05))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.notebook import run_experiment as run_experiment
    from harness.tracking.reading import epochs as epochs
    from harness.tracking.reading import runs as runs

_MODULES = {
    "runs": "harness.tracking.reading",
    "epochs": "harness.tracking.reading",
    "run_experiment": "harness.notebook",
}


def __getattr__(name: str) -> Any:
    """Import a function at its first use: most commands need neither torch nor pandas."""
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
