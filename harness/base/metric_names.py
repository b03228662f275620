"""Names of metrics: `test/accuracy` is the metric `accuracy` on the test examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

Best = Literal["max", "min"]

LOSS = "loss"
"""Always measured, and lowest is best."""

AVERAGE = "average_"
"""Before the name of a metric: of the averaged weights."""

SETS = ("train", "validation", "test")
"""The parts of a data set on which metrics are measured."""

JUDGES = ("test", "validation")
"""The parts that judge a training: the first of these that it was evaluated on."""


RESERVED = (*SETS, "time", "memory", "system", "model", "study", "confirm", "verify")
"""What stands before the slash in names that the harness records itself."""


def quantities(names: Iterable[str]) -> list[str]:
    """What was measured on some part of the data: the loss first, then the metrics.

    Those of the averaged weights are the same quantities; see `averages`.

    >>> quantities(["train/accuracy", "train/loss", "test/loss", "time/train_seconds", "lr"])
    ['loss', 'accuracy']
    """
    known = dict.fromkeys(names)
    split = (name.partition("/") for name in known)
    measured = (name for part, _, name in split if name and part in SETS)
    found = dict.fromkeys(name for name in measured if not _is_average(name, known))
    return sorted(found, key=lambda name: name != LOSS)


def averages(names: Iterable[str]) -> list[str]:
    """The quantities that were measured of the averaged weights too.

    >>> averages(["train/loss", "test/loss", "test/average_loss"])
    ['loss']
    """
    known = dict.fromkeys(names)
    return [
        name
        for name in quantities(known)
        if _is_average(f"{AVERAGE}{name}", known)
        and any(f"{part}/{AVERAGE}{name}" in known for part in JUDGES)
    ]


def _is_average(name: str, known: Collection[str]) -> bool:
    """Whether a quantity is another one's average; an experiment's own is measured of train too."""
    plain = name.removeprefix(AVERAGE)
    return (
        plain != name
        and f"train/{name}" not in known
        and any(f"{part}/{plain}" in known for part in SETS)
    )


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
