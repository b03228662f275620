"""The two ways a command can go wrong, and the suggestion of a nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadRequest(ValueError):
    """The user asked for something that cannot be done: exit status 2.

    The message names the wrong thing and what would be right, in one or two short lines.
    """


class RunFailed(RuntimeError):
    """The request was fine, but the work went wrong: exit status 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the known names closest to `name`, or lists all of them.

    >>> nearest("baselin", ["baseline", "lenet"])
    'Did you mean baseline?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(names) or 'none'}."
