"""Large arrays in files of the project's store, which all processes of a machine share."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from harness.base import project
from harness.training.downloads import DataUnavailable

SMALLEST_MAPPED = 1 << 20
"""Bytes below which an array stays in the memory of each process."""


def stored(key: str, write: Callable[[Path], None]) -> Path:
    """The folder `mlruns/datasets/<key>` of the project; `write` fills it if it is not there yet.

    It appears with its whole content or not at all. Processes that need it wait for the first one.

    Raises:
        DataUnavailable: the folder cannot be written.
    """
    folder = _folder_of(key)
    if folder.is_dir():
        return folder
    staging = folder.with_name(f".{key}")
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(staging.with_suffix(".lock")):
            if not folder.is_dir():
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                try:
                    write(staging)
                    staging.replace(folder)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = "the disk is full" if full else error.strerror or str(error)
        raise DataUnavailable(f"{staging.parent}: cannot be written ({reason}).") from None
    return folder


def key_of(*parts: object) -> str:
    """A folder's name for what these parts describe."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def shared(array: NDArray[np.generic]) -> torch.Tensor:
    """The array as a tensor; a large one is written to a file under its digest and mapped.

    Where nothing may be written, it stays in memory.
    """
    array = np.ascontiguousarray(array)
    if array.nbytes < SMALLEST_MAPPED:
        return torch.from_numpy(array.copy())
    content = hashlib.sha256(array.data).hexdigest()
    key = key_of(content, str(array.dtype), array.shape)
    if not _folder_of(key).is_dir() and _may_only_be_read(project.mlruns()):
        return torch.from_numpy(array.copy())
    folder = stored(key, lambda staging: array.tofile(staging / "array"))
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return mapped(folder / "array", dtype, array.shape)


def _folder_of(key: str) -> Path:
    return project.mlruns() / "datasets" / key


def _may_only_be_read(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


def mapped(file: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """An array in a file, mapped copy-on-write."""
    count = int(np.prod(shape))
    return torch.from_file(str(file), shared=False, size=count, dtype=dtype).view(shape)
