"""Names of metrics: `test/accuracy` is the metric `accuracy` on the test examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Best = Literal["max", "min"]

LOSS = "loss"
"""Always measured, and lowest is best."""

SETS = ("train", "validation", "test")
"""The parts of a data set on which metrics are measured."""

JUDGES = ("test", "validation")
"""The parts that judge a training: the first of these that it was evaluated on."""


RESERVED = (*SETS, "time", "memory", "system", "model", "study", "confirm", "verify")
"""What stands before the slash in names that the harness records itself."""


def quantities(names: Iterable[str]) -> list[str]:
    """What was measured on some part of the data: the loss first, then the metrics.

    >>> quantities(["train/accuracy", "train/loss", "test/loss", "time/train_seconds", "lr"])
    ['loss', 'accuracy']
    """
    split = (name.partition("/") for name in names)
    found = dict.fromkeys(name for part, _, name in split if name and part in SETS)
    return sorted(found, key=lambda name: name != LOSS)


def observations(names: Iterable[str]) -> list[str]:
    """Those that an experiment has observed beside its metrics.

    >>> observations(["train/loss", "time/train_seconds", "lr", "norm/gradient"])
    ['lr', 'norm/gradient']
    """
    return [name for name in names if name.partition("/")[0] not in RESERVED]


def judge(names: Iterable[str]) -> str | None:
    """The part of the data that judges a training with these metrics; None if it was not judged."""
    known = set(names)
    return next((part for part in JUDGES if f"{part}/{LOSS}" in known), None)
