"""Where the project lies on disk."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from harness.base.errors import BadRequest

FOLDERS = ("experiments", "studies")
"""What makes a folder a project."""

VARIABLE = "HARNESS_PROJECT"


@functools.cache
def root() -> Path:
    """The project: the folder that `HARNESS_PROJECT` names, or the nearest one upwards.

    It holds `experiments/` and `studies/`, and everything that is recorded. The answer stays the
    same for the whole process.

    Raises:
        BadRequest: there is no project here.
    """
    if named := os.environ.get(VARIABLE):
        folder = Path(named).expanduser().resolve()
        if not is_project(folder):
            raise BadRequest(
                f"{VARIABLE}: {named} is no project; expected a folder with experiments/ and "
                "studies/."
            )
        return folder
    here = Path.cwd().resolve()
    found = next((folder for folder in (here, *here.parents) if is_project(folder)), None)
    if found is None:
        raise BadRequest(
            "There is no project here: neither this folder nor one above it holds experiments/ "
            "and studies/.\nMake one: python -m harness init"
        )
    return found


def is_project(folder: Path) -> bool:
    """Whether a folder holds experiments and studies."""
    return all((folder / name).is_dir() for name in FOLDERS)


def mlruns() -> Path:
    """The folder of everything that runs leave behind: databases, artifacts, checkpoints."""
    return root() / "mlruns"
