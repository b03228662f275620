"""Where the project lies on disk."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from harness.base import sqlite
from harness.base.errors import BadRequest

FOLDERS = ("experiments", "studies")
"""What makes a folder a project."""

VARIABLE = "HARNESS_PROJECT"

NONE_HERE = (
    "There is no project here: neither this folder nor one above it holds experiments/ and "
    "studies/.\nMake one: python -m harness init"
)


@functools.cache
def root() -> Path:
    """The project: the folder that `HARNESS_PROJECT` names, or the nearest one upwards.

    It holds `experiments/` and `studies/`, and everything that is recorded. The answer stays the
    same for the whole process.

    Raises:
        BadRequest: there is no project here.
    """
    if named := os.environ.get(VARIABLE):
        folder = Path(os.path.realpath(os.path.expanduser(named)))
        if not is_project(folder):
            raise BadRequest(
                f"{VARIABLE}: {named} is no project; expected a folder with experiments/ and "
                "studies/."
            )
        return folder
    try:
        here = Path.cwd().resolve()
    except OSError:  # the current folder was deleted
        raise BadRequest(NONE_HERE) from None
    found = next((folder for folder in (here, *here.parents) if is_project(folder)), None)
    if found is None:
        raise BadRequest(NONE_HERE)
    return found


def environment_for_child(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is started in the project's root, of the same package."""
    changes = {VARIABLE: str(root())}
    if store := environment.get("MLFLOW_TRACKING_URI"):
        changes["MLFLOW_TRACKING_URI"] = sqlite.absolute_address(store)
    source = Path(__file__).resolve().parents[2]
    # A checkout that is not installed is found from its own folder alone.
    if source != root() and os.path.samefile(".", source):
        others = environment.get("PYTHONPATH")
        changes["PYTHONPATH"] = f"{source}{os.pathsep}{others}" if others else str(source)
    return {**environment, **changes}


def is_project(folder: Path) -> bool:
    """Whether a folder holds experiments and studies; one that cannot be read does not."""
    return all(os.path.isdir(folder / name) for name in FOLDERS)


def mlruns() -> Path:
    """The folder of everything that runs leave behind: databases, artifacts, checkpoints."""
    return root() / "mlruns"
