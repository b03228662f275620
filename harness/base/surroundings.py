"""Settings of the user's surroundings that are meant for other programs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""This machine, for the variables that say what no proxy is asked for."""


def without_foreign_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing changes how libraries do the harness's work.

    Filters that turn warnings into errors would end MLflow's own calls, and a proxy does not know
    this machine's own servers.
    """
    changed = {name: text for name, text in environment.items() if name != "PYTHONWARNINGS"}
    for name in ("no_proxy", "NO_PROXY"):
        excepted = [known for known in changed.get(name, "").split(",") if known]
        if excepted != ["*"]:
            # Each process passes it on to the next one: names that are there stay as they are.
            changed[name] = ",".join(dict.fromkeys([*excepted, *LOOPBACK_NAMES]))
    return changed


def ignore_foreign_settings() -> None:
    """Make this process, a command of the harness, work in such an environment."""
    changed = without_foreign_settings(os.environ)
    os.environ.pop("PYTHONWARNINGS", None)
    os.environ.update(changed)
    if sys.warnoptions:
        # What Python does without any; see "Default Warning Filter" in its documentation.
        warnings.resetwarnings()
        ignored = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
        for category in ignored:
            warnings.simplefilter("ignore", category)
