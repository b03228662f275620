"""Metrics: what is measured of the logits of an epoch, beside the loss."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from harness.base.errors import BadRequest, RunFailed
from harness.base.metric_names import AVERAGE, LOSS, RESERVED, Best


class Accumulator(Protocol):
    """Accumulates a metric over the batches of an epoch; torchmetrics' objects are such."""

    def update(self, logits: torch.Tensor, labels: torch.Tensor, /) -> object:
        """Take a batch: logits (b, ...) without gradients, and labels (b, ...)."""

    def compute(self) -> Any:
        """The metric of everything since the last reset, as one number."""

    def reset(self) -> object:
        """Forget everything."""


PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Metric:
    """A metric of the network's outputs, measured in every epoch on each set of examples.

    Attributes:
        make: returns a new accumulator, such as `lambda: torchmetrics.F1Score(...)`; by default
            the metric is the mean of `per_example`.
        best: whether the highest or the lowest value is best; None if neither is.
        per_example: returns the values (b,) of the examples of a batch from their logits and
            labels. Without them, intervals are over seeds only.

    Raises:
        BadRequest: there is neither `make` nor `per_example`, or `best` is another word.
    """

    make: Callable[[], Accumulator] | None = None
    best: Best | None = None
    per_example: PerExample | None = None

    def __post_init__(self) -> None:
        is_object = hasattr(self.make, "compute") and not isinstance(self.make, type)
        if is_object or not (callable(self.make) or callable(self.per_example)):
            raise BadRequest(
                "Metric: expected a function that returns a new object with update, compute and "
                f"reset, like lambda: ..., got {self.make!r}."
            )
        if self.best not in ("max", "min", None):
            raise BadRequest(f"Metric: best: expected 'max', 'min' or None, got {self.best!r}.")

    def accumulator(self, name: str) -> Accumulator:
        """A new accumulator of the metric that has this name."""
        if self.make:
            return self.make()
        assert self.per_example
        return _MeanOfExamples(name, self.per_example)


def _is_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the highest of the logits (b, c) is that of the label (b,): (b,), bool."""
    return logits.argmax(dim=1) == labels


ACCURACY = Metric(best="max", per_example=_is_correct)
"""The share of examples whose highest logit is that of their label."""


class _MeanOfExamples:
    """The mean of the values of all examples, kept on the device until it is asked for.

    Reading them after each batch would make the host wait for the device.
    """

    def __init__(self, name: str, per_example: PerExample) -> None:
        self._name = name
        self._per_example = per_example
        self._values: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor, /) -> None:
        values = self._per_example(logits, labels)
        if not isinstance(values, torch.Tensor) or values.shape != labels.shape[:1]:
            shape = tuple(values.shape) if isinstance(values, torch.Tensor) else ""
            returned = f"{type(values).__name__} {shape}".rstrip()
            raise RunFailed(
                f"per_example of the metric {self._name} must return a tensor with one value for "
                f"each example, ({len(labels)},), but returned a {returned}"
            )
        self._values.append(values)

    def compute(self) -> float:
        values = torch.cat(self._values)
        if values.dtype == torch.bool:
            return int(values.sum()) / len(values)
        return float(values.mean(dtype=torch.float64))

    def reset(self) -> None:
        self._values = []


def loss_of_examples(loss: nn.Module) -> PerExample | None:
    """The loss (b,) of each example of a batch; None if a loss is not their plain mean."""
    if getattr(loss, "reduction", None) != "mean" or getattr(loss, "weight", None) is not None:
        return None
    each = copy.copy(loss)
    each.reduction = "none"  # type: ignore[assignment]

    def per_example(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = each(logits, labels)
        return losses.flatten(1).mean(dim=1) if losses.dim() > 1 else losses

    return per_example


def checked_metrics(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """What an experiment's `metrics()` has returned.

    Raises:
        BadRequest: it is not a dict of metrics by name.
    """
    if not isinstance(metrics, Mapping):
        raise BadRequest(f"metrics(): expected a dict of Metric by name, got {metrics!r}.")
    for name, metric in metrics.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise BadRequest(f"metrics(): {name!r} is no name; use letters, digits, _ . and -")
        if name == LOSS:
            raise BadRequest(f"metrics(): {LOSS} is always measured; choose another name.")
        if not isinstance(metric, Metric):
            raise BadRequest(
                f"metrics(): {name}: expected a Metric, like Metric(lambda: ..., best='max'), got "
                f"{metric!r}."
            )
    return dict(metrics)


def directions(
    metrics: Mapping[str, Metric], *, with_averages: bool = False
) -> dict[str, Best | None]:
    """What is best for each metric; the loss comes last, then what averaged weights give.

    Raises:
        BadRequest: it is not a dict of metrics by name, or a name is that of an average.
    """
    plain = {name: metric.best for name, metric in checked_metrics(metrics).items()} | {LOSS: "min"}
    averages = {f"{AVERAGE}{name}": best for name, best in plain.items()} if with_averages else {}
    if twice := sorted(plain.keys() & averages.keys()):
        raise BadRequest(
            f"metrics(): {twice[0]} is the {twice[0].removeprefix(AVERAGE)} of the averaged "
            "weights; give it another name, or leave average_weights off."
        )
    return plain | averages


def checked_observations(observed: Mapping[str, Any]) -> dict[str, float]:
    """What an experiment's `observe` has returned, as plain numbers.

    Raises:
        RunFailed: it is not a dict of numbers by name, or a name is the harness's own.
    """
    if not isinstance(observed, Mapping):
        raise RunFailed(f"observe(): expected a dict of numbers by name, got {observed!r}.")
    for name in observed:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", name):
            raise RunFailed(f"observe(): {name!r} is no name; use letters, digits, _ . - and /")
        if name.partition("/")[0] in RESERVED:
            raise RunFailed(f"observe(): {name!r} begins with a word that the harness uses.")
    return {name: _number(f"observe(): {name}", value) for name, value in observed.items()}


class MetricTally:
    """The loss and the metrics of one pass over a set of examples."""

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device) -> None:
        self._accumulators = {name: metric.accumulator(name) for name, metric in metrics.items()}
        for accumulator in self._accumulators.values():
            if hasattr(accumulator, "to"):
                accumulator.to(device)
        self._losses: list[torch.Tensor] = []
        self._sizes: list[int] = []

    def update(self, logits: torch.Tensor, loss: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a batch; `loss` is its mean."""
        self._losses.append(loss.detach())
        self._sizes.append(len(labels))
        logits = logits.detach()
        for accumulator in self._accumulators.values():
            accumulator.update(logits, labels)

    def values(self) -> dict[str, float]:
        """The loss, a mean over the examples, and the metrics; then begin anew.

        The products are added one by one, in double precision. From Python 3.12 on, `sum` would
        compensate rounding and give other bits than the `+=` of a plain script.

        Raises:
            RunFailed: a metric is not one number.
        """
        total = 0.0
        for loss, size in zip(torch.stack(self._losses).tolist(), self._sizes, strict=True):
            total += loss * size
        values = {LOSS: total / sum(self._sizes)}
        for name, accumulator in self._accumulators.items():
            values[name] = _number(f"metric {name}: compute()", accumulator.compute())
            accumulator.reset()
        self._losses, self._sizes = [], []
        return values


def _number(what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise RunFailed(
            f"{what}: expected one number, got a {type(value).__name__}{shape}."
        ) from None
