"""A new project: the files that `init` writes."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.base.errors import BadRequest

FILES = {
    "experiments/baseline.py": "experiment.txt",
    "studies/lr_search.py": "study.txt",
    ".gitignore": "gitignore.txt",
    "README.md": "readme.txt",
}
"""What a new project holds, and the template of each file."""

TEMPLATES = Path(__file__).parents[1] / "templates"


def make_project(folder: Path) -> str:
    """Write the files that a folder lacks; return what was done, and what to type next.

    Raises:
        BadRequest: the folder cannot be written.
    """
    made, kept = [], []
    try:
        for name, template in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write((TEMPLATES / template).read_text(encoding="utf-8"))
            except FileExistsError:
                kept.append(name)
            else:
                made.append(name)
    except (OSError, ValueError) as error:  # a null byte in the name
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise BadRequest(f"init: {folder} cannot be made a project: {reason}") from None
    lines = [f"{folder.resolve()}:"]
    lines += [f"  made  {name}" for name in made] + [f"  kept  {name}" for name in kept]
    enter = [] if folder.samefile(".") else [f"cd {shlex.quote(str(folder))}"]
    next_steps = [*enter, "python -m harness.run baseline --dataset digits"]
    return "\n".join([*lines, "Next:", *(f"  {step}" for step in next_steps)])
