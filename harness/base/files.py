"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new one.

    The content goes to a file beside it, is forced to disk and renamed.

    Raises:
        OSError: The file cannot be written. Nothing half-written remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if sys.platform == "win32":
        return  # It cannot open folders, and NTFS records the renaming in its journal.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
