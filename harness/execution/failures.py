"""What went wrong with a training: one classifier, one wording, for runs, trials and Python."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch

from harness.base import project
from harness.base.errors import BadRequest, RunFailed
from harness.base.privacy import mask
from harness.base.signals import Interrupted
from harness.execution.events import Ending
from harness.tracking.schema import Outcome
from harness.training.experiment import Experiment

LIBRARIES = tuple(
    {
        Path(__file__).parents[1],
        *(Path(path) for name, path in sysconfig.get_paths().items() if name.endswith("lib")),
        Path(torch.__file__).parents[1],
    }
)
"""Folders of code that is not the user's: this package, Python, installed packages."""

OUT_OF_MEMORY = "Out of memory"

REASONS: dict[Outcome, str] = {
    "diverged": "the loss is not finite",
    "collapsed": "nothing was learned: the predictions are no better than guesses",
}
"""What went wrong with a training that ended without an error."""


def ending_of(error: BaseException, experiment: Experiment) -> Ending:
    """How a training ends that raised an error, or was interrupted by one."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return Ending("interrupted", reason=str(error) or type(error).__name__)
    return Ending("failed", reason=str(explained(error, experiment)), trace=_trace(error))


def explained(error: BaseException, experiment: Experiment) -> BaseException:
    """An error of the experiment's own code as one that names the cause and the place.

    Errors that explain themselves, and those that end the process, are returned as they are.
    """
    if isinstance(error, (BadRequest, RunFailed)) or not isinstance(error, (Exception, SystemExit)):
        return error
    text = str(error).partition("\n")[0]
    # On the CPU torch raises a plain RuntimeError.
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        smaller = max(1, experiment.batch_size // 2)
        tried = re.search(r"tried to allocate [\d.]+ \w+", text, re.IGNORECASE)
        amount = f" (t{tried[0][1:]})" if tried else ""
        return RunFailed(
            f"{OUT_OF_MEMORY} with batch_size {experiment.batch_size}{amount}.\n"
            f"Try --batch-size {smaller}, or a smaller network."
        )
    if isinstance(error, BrokenPipeError):
        return RunFailed("The output was closed: nothing reads what this command prints.")
    place, is_own = _place(error)
    if isinstance(error, OSError) and not is_own:
        return RunFailed(f"The system refused: {error.strerror or error}.")
    return RunFailed(
        f"{experiment.name} failed: {type(error).__name__}: {text} "
        f"({Path(place.filename).name}, line {place.lineno})"
    )


def _place(error: BaseException) -> tuple[traceback.FrameSummary, bool]:
    """Where the user's own code raised an error, or called what raised it; and if it did so."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not any(Path(frame.filename).is_relative_to(folder) for folder in LIBRARIES)
        and not frame.filename.startswith("<frozen")
    ]
    return (own or frames)[-1], bool(own)


def _trace(error: BaseException) -> str:
    """The frames of an error; paths start at the project's root, so none names a user's folder."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        place = (
            path.relative_to(project.root())
            if path.is_relative_to(project.root())
            else Path(*path.parts[-2:])
        )
        lines.append(f"{place}, line {frame.lineno}, in {frame.name}\n    {frame.line}")
    return mask("\n".join([*lines, f"{type(error).__name__}: {error}\n"]))
