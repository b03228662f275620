"""The random generators of one training, apart from those of the process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class Generators:
    """Everything that a training draws from: torch, its accelerator, NumPy and Python.

    Libraries draw from the generators of the process. `active` puts a training's own in their place
    and gives the process back what it had, so several trainings in one process leave each other
    (and a user's notebook) alone.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        """Seed every generator, as a script does that seeds each of them with `seed`."""
        self._device = device
        outer = _read(device)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        self._own = _read(device)
        _write(outer, device)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Have everything in the block draw from this training's generators."""
        outer = _read(self._device)
        try:
            _write(self._own, self._device)
            yield
        finally:
            self._own = _read(self._device)
            _write(outer, self._device)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Have the generators in use afterwards as if the block had drawn nothing."""
        before = _read(self._device)
        try:
            yield
        finally:
            _write(before, self._device)

    def state(self) -> dict[str, Any]:
        """The state of every generator, in types that `torch.load(weights_only=True)` accepts."""
        return self._own

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; a generator that this device lacks is left out."""
        self._own = {**_read(self._device), **{n: s for n, s in state.items() if s is not None}}


def _read(device: torch.device) -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }


def _write(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and state["mps"] is not None:
        torch.mps.set_rng_state(state["mps"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
