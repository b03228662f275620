"""What a command puts out: text on the screen, and files that a flag names.

Files are checked before the work begins, and written completely or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.base import files
from harness.base.errors import BadRequest
from harness.base.formatting import harmless


def print_text(text: str) -> None:
    """Print a text to standard output, where names in it do nothing to a terminal."""
    print(harmless(text, lines=True), flush=True)


def check_writable(flag: str, path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed for it.

    Raises:
        BadRequest: the path is a folder, or its folder is missing or may not be written.
    """
    try:
        if path.is_dir():
            reason = "it is a folder"
        elif not path.parent.is_dir():
            reason = f"there is no folder {path.parent}"
        elif not os.access(path if path.exists() else path.parent, os.W_OK):
            reason = "permission denied"
        else:
            return
    except OSError as error:  # the name is too long, for example
        reason = str(error.strerror)
    raise _refusal(flag, path, reason)


def write_output(flag: str, path: Path, content: bytes) -> None:
    """Write a file; after a failure it holds its old content.

    Raises:
        BadRequest: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout must not be replaced
            path.write_bytes(content)
        else:
            files.write_whole(path, content)
    except OSError as error:
        raise _refusal(flag, path, str(error.strerror)) from None


def _refusal(flag: str, path: Path, reason: str) -> BadRequest:
    return BadRequest(f"{flag}: {path} cannot be written: {reason}.")
