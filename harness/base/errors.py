"""The two ways in which a command fails, and the suggestion of a similar name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from harness.base.formatting import harmless


class BadRequest(ValueError):
    """The user asked for something that cannot be done: exit status 2.

    The message names what is wrong and what would be right, in one or two short lines.
    """


class RunFailed(RuntimeError):
    """The request was fine, but the work went wrong: exit status 1."""


class RecordLost(RunFailed):
    """What a run had recorded was deleted while it was training."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the known names closest to `name`, or lists all of them.

    >>> nearest("baselin", ["baseline", "lenet"])
    'Did you mean baseline?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(map(harmless, close))}?"
    return f"Known: {', '.join(map(harmless, names)) or 'none'}."
