"""Checkpoints: the whole state of a training in one file, which is complete or absent.

A file holds a SHA-256 (64 hexadecimal digits and a newline), then the output of `torch.save`, which
the SHA-256 covers. It is written under another name, forced to disk and renamed.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from harness.base.errors import RunFailed
from harness.base.files import write_whole

_DIGEST_LENGTH = 65


class CheckpointDamaged(RunFailed):
    """A checkpoint was altered, or is not a checkpoint at all."""


class CheckpointUnsaved(RunFailed):
    """A checkpoint cannot be written, on a full disk for example. The one before it remains."""


def encode(state: dict[str, Any]) -> bytes:
    """A state as the content of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def decode(content: bytes, name: str = "checkpoint") -> dict[str, Any]:
    """The state in the content of a checkpoint, on the CPU; no code from it is executed.

    Raises:
        CheckpointDamaged: the content is truncated, altered, or not a checkpoint; the message
            begins with `name`.
    """
    digest, saved = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH:]
    if digest != hashlib.sha256(saved).hexdigest().encode() + b"\n":
        raise CheckpointDamaged(f"{name}: the checkpoint is damaged, its digest does not match.")
    try:
        state = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load gives up on foreign content in a dozen ways
        reason = str(error).partition("\n")[0]
        raise CheckpointDamaged(f"{name}: not a checkpoint ({reason}).") from None
    if not isinstance(state, dict):
        raise CheckpointDamaged(f"{name}: not a checkpoint (it holds a {type(state).__name__}).")
    return state


def save(path: Path, content: bytes) -> None:
    """Write a checkpoint. After a crash at any moment `path` holds the old file or the new one.

    Raises:
        CheckpointUnsaved: the file cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise CheckpointUnsaved(f"{path}: cannot be written ({error.strerror}).") from None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; see `decode`.

    Raises:
        CheckpointDamaged: the file cannot be read, or is not a whole checkpoint.
    """
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointDamaged(f"{path}: cannot be read ({error.strerror}).") from None


def path_of(folder: Path, epoch: int) -> Path:
    """The file of an epoch's checkpoint."""
    return folder / f"epoch-{epoch:06d}.checkpoint"


def latest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run, the latest epoch's first."""
    return sorted(folder.glob("epoch-*.checkpoint"), reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the latest `keep` checkpoints."""
    for path in latest_first(folder)[keep:]:
        path.unlink(missing_ok=True)
