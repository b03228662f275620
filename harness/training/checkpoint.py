"""Checkpoints: the whole state of a training in one file that is whole or not there.

A file is the SHA-256 of what follows (64 hexadecimal digits and a newline), then what `torch.save`
writes. It is written beside its place, forced to disk and renamed.
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
    """A checkpoint is not what was written, or not a checkpoint at all."""


class CheckpointUnsaved(RunFailed):
    """A checkpoint cannot be written: the disk is full, say. The one before it is still there."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state; after a crash at any moment `path` holds the old file or the new one.

    Raises:
        CheckpointUnsaved: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        write_whole(path, hashlib.sha256(content).hexdigest().encode() + b"\n", content)
    except OSError as error:
        raise CheckpointUnsaved(f"{path}: cannot be written ({error.strerror}).") from None


def load(path: Path) -> dict[str, Any]:
    """Read a state back, onto the CPU, without executing code from the file.

    Raises:
        CheckpointDamaged: the file is truncated, altered, or not a checkpoint.
    """
    try:
        with path.open("rb") as file:
            digest = file.read(_DIGEST_LENGTH)
            content = file.read()
    except OSError as error:
        raise CheckpointDamaged(f"{path}: cannot be read ({error.strerror}).") from None
    if digest != hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise CheckpointDamaged(f"{path}: the checkpoint is damaged, its digest does not match.")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load gives up on foreign content in a dozen ways
        reason = str(error).partition("\n")[0]
        raise CheckpointDamaged(f"{path}: not a checkpoint ({reason}).") from None
    if not isinstance(state, dict):
        raise CheckpointDamaged(f"{path}: not a checkpoint (it holds a {type(state).__name__}).")
    return state


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
