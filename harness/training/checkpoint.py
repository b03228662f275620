"""Checkpoints: the state of a training after an epoch, in a file that is complete or absent.

A checkpoint is a SHA-256 (64 hexadecimal digits and a newline), then a line of JSON that says what
it is of, then the output of `torch.save`; the SHA-256 covers the last two. It is written under
another name, forced to disk and renamed. The epochs so far stand beside it, in one file that grows
by a line an epoch, so that a checkpoint's size does not depend on the length of the training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.base.errors import RunFailed
from harness.base.files import write_whole

_DIGEST_LENGTH = 65

Epochs = Sequence[tuple[int, dict[str, float]]]
"""Epochs, each with its number and its metrics."""


class CheckpointDamaged(RunFailed):
    """A checkpoint was altered, or is not a checkpoint at all."""


class CheckpointUnsaved(RunFailed):
    """A checkpoint cannot be written, on a full disk for example. The one before it remains."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint is of, and the state that it holds.

    Attributes:
        run: the id of the run that was trained.
        experiment: the name of its experiment.
        epoch: the epoch after which it was saved.
        history_bytes: how much of the history belongs to it.
        history_sha256: the digest of that part.
        content: the state, as `encode` returns it.
    """

    run: str
    experiment: str
    epoch: int
    history_bytes: int
    history_sha256: str
    content: bytes

    def state(self) -> dict[str, Any]:
        """The state; see `decode`."""
        return decode(self.content)


def encode(state: dict[str, Any]) -> bytes:
    """A state as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def decode(content: bytes, name: str = "checkpoint") -> dict[str, Any]:
    """The state in what `encode` returned, on the CPU; no code from it is executed.

    Raises:
        CheckpointDamaged: the content is not a state; the message begins with `name`.
    """
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load gives up on foreign content in a dozen ways
        reason = str(error).partition("\n")[0]
        raise CheckpointDamaged(f"{name}: not a checkpoint ({reason}).") from None
    if not isinstance(state, dict):
        raise CheckpointDamaged(f"{name}: not a checkpoint (it holds a {type(state).__name__}).")
    return state


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. After a crash at any moment `path` holds the old file or the new one.

    Raises:
        CheckpointUnsaved: the file cannot be written.
    """
    words = dataclasses.asdict(checkpoint)
    content = words.pop("content")
    head = f"{json.dumps(words)}\n".encode()
    sha256 = hashlib.sha256(head)
    sha256.update(content)
    try:
        write_whole(path, f"{sha256.hexdigest()}\n".encode(), head, content)
    except OSError as error:
        raise CheckpointUnsaved(f"{path}: cannot be written ({error.strerror}).") from None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint whose state can be read.

    Raises:
        CheckpointDamaged: the file cannot be read, or is not a whole checkpoint.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointDamaged(f"{path}: cannot be read ({error.strerror}).") from None
    digest, saved = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH:]
    if digest != hashlib.sha256(saved).hexdigest().encode() + b"\n":
        raise CheckpointDamaged(f"{path}: the checkpoint is damaged, its digest does not match.")
    head, _, content = saved.partition(b"\n")
    try:
        checkpoint = Checkpoint(**json.loads(head), content=content)
        words = (checkpoint.run, checkpoint.experiment, checkpoint.history_sha256)
        counts = (checkpoint.epoch, checkpoint.history_bytes)
        is_whole = all(isinstance(word, str) for word in words)
        is_whole = is_whole and all(type(count) is int and count >= 0 for count in counts)
    except (ValueError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise CheckpointDamaged(f"{path}: not a checkpoint (it does not say what it is of).")
    decode(content, str(path))
    return checkpoint


def path_of(folder: Path, epoch: int) -> Path:
    """The file of an epoch's checkpoint."""
    return folder / f"epoch-{epoch:06d}.checkpoint"


def latest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run, the latest epoch's first."""
    found = folder.glob("epoch-*.checkpoint")
    return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the latest `keep` checkpoints."""
    for path in latest_first(folder)[keep:]:
        path.unlink(missing_ok=True)


def hand_over(folder: Path, run: str) -> None:
    """Rename a run's folder to another run, to which its checkpoints belong from now on.

    Raises:
        OSError, CheckpointUnsaved: it cannot be written.
    """
    for path in latest_first(folder):
        with contextlib.suppress(CheckpointDamaged):
            save(path, dataclasses.replace(load(path), run=run))
    folder.rename(folder.with_name(run))


class HistoryFile:
    """Writes the epochs of a training beside its checkpoints, each epoch once."""

    def __init__(self) -> None:
        """Begin without an epoch; the first `write` replaces what another process has left."""
        self._forget()

    def _forget(self) -> None:
        self._sha256 = hashlib.sha256()
        self._count = self._size = 0

    def write(self, folder: Path, epochs: Epochs) -> tuple[int, str]:
        """Bring the file up to these epochs, and return how long it is now, and its digest.

        Args:
            epochs: all so far.

        Raises:
            CheckpointUnsaved: they cannot be written. The history before them remains.
        """
        path = _history_of(folder)
        if not path.exists():  # somebody may have deleted it
            self._forget()
        lines = "".join(f"{json.dumps(epoch)}\n" for epoch in epochs[self._count :]).encode()
        try:
            if not self._size:
                write_whole(path, lines)
            else:
                with path.open("r+b") as file:
                    file.seek(self._size)
                    file.truncate()  # what is left of a write that failed
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointUnsaved(f"{path}: cannot be written ({error.strerror}).") from None
        self._sha256.update(lines)
        self._size += len(lines)
        self._count = len(epochs)
        return self._size, self._sha256.hexdigest()


def history(path: Path, checkpoint: Checkpoint) -> list[tuple[int, dict[str, float]]]:
    """The epochs up to a checkpoint, which was read from `path`.

    Raises:
        CheckpointDamaged: the history is not there any more, or not as it was.
    """
    damaged = CheckpointDamaged(f"{path}: the epochs up to it are damaged.")
    try:
        with _history_of(path.parent).open("rb") as file:
            lines = file.read(checkpoint.history_bytes)
    except OSError:
        raise damaged from None
    if hashlib.sha256(lines).hexdigest() != checkpoint.history_sha256:
        raise damaged
    try:
        lines_read = map(json.loads, lines.splitlines())
        epochs = [(int(epoch), dict(metrics)) for epoch, metrics in lines_read]
    except (ValueError, TypeError):
        raise damaged from None
    if [epoch for epoch, _ in epochs] != list(range(1, checkpoint.epoch + 1)):
        raise damaged
    return epochs


def _history_of(folder: Path) -> Path:
    return folder / "history.jsonl"
