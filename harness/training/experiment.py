"""An experiment: hyperparameters, and the methods that build what they describe.

An experiment file defines one subclass of `Experiment`. Its annotated fields become fields of a
frozen dataclass, flags of the command line and recorded parameters, all under one name. The string
below a field is its help text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Protocol, dataclass_transform

import torch
from torch import nn

from harness.base import discovery, fields, outside_code, project
from harness.base.errors import BadRequest
from harness.base.fields import Count, Interval, NonNegative, Positive, Seed
from harness.base.formatting import assignments
from harness.base.metric_names import Best
from harness.base.outside_code import OutsideCode
from harness.training.averaging import AverageName
from harness.training.builtin_datasets import DatasetName, open_dataset
from harness.training.dataset import Dataset
from harness.training.metrics import ACCURACY, Metric, directions
from harness.training.optimizer import VanillaSGD
from harness.training.schedule import Schedule, ScheduleName

CIRCUMSTANCES = ("dataset", "num_epochs", "validation_size", "split_seed", "stratify", "seed")
"""Fields that say on what data, how long and with which seed; the others say what is trained."""


class ObservedTraining(Protocol):
    """What `Experiment.observe` sees of a training; it may read everything and change nothing.

    Attributes:
        scheduler: None if there is no schedule.
    """

    network: nn.Module
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None

    @property
    def history(self) -> Sequence[Any]:
        """The epochs so far, each with its number `epoch` and its `metrics` by name."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """Everything that decides what is trained. Subclass it, add fields, define `network`."""

    name: ClassVar[str] = "experiment"
    """The name of the experiment's file; in a notebook, the class's name in snake case."""
    _file: ClassVar[str] = ""

    dataset: DatasetName = "fashion-mnist"
    """Data set: 60,000 training and 10,000 test examples of 28x28 in ten classes (digits: 1,437 and
    360)."""
    seed: Annotated[int, Seed] = 0
    """Seed of the initial weights, the order of the examples, and every other random draw."""
    lr: Annotated[float, Positive] = 0.1
    """Learning rate of the optimizer."""
    batch_size: Annotated[int, Count] = 256
    """Examples in a batch."""
    drop_last: bool = False
    """Leave the last batch of an epoch out if it is smaller than the others."""
    loss_scale: Literal["batch", "example"] = "batch"
    """What weighs the same in an update: each batch, or each example also in a smaller last one."""
    num_epochs: Annotated[int, Count] = 10
    """Passes over the training examples."""
    validation_size: Annotated[int, NonNegative] = 0
    """Training examples set aside for validation. Each epoch is evaluated on them, or with 0 on the
    test examples."""
    split_seed: Annotated[int, Seed] = 0
    """Seed that draws the validation examples; the split does not depend on seed."""
    stratify: bool = False
    """Draw the validation examples from each class in proportion to its size."""
    schedule: ScheduleName = "constant"
    """What the learning rate does after the warm-up: it stays, or falls to its final fraction."""
    warmup_epochs: Annotated[float, NonNegative] = 0.0
    """Epochs in which the learning rate rises from near 0."""
    final_lr_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the learning rate at the end of a linear or cosine schedule."""
    patience: Annotated[int, NonNegative] = 0
    """Epochs without improvement on the validation examples after which the training stops; 0 never
    stops it."""
    average_weights: AverageName = "off"
    """Evaluate averaged weights too: the mean over the updates of the last epoch, or an exponential
    moving average with the memory of an epoch. The training itself stays the same."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls).get("__annotations__", {}):
            if name not in Experiment.__annotations__ and hasattr(Experiment, name):
                raise BadRequest(
                    f"{cls.__name__}: the field {name} is called like a method of every "
                    "experiment; give it another name."
                )
        inherited = typing.get_type_hints(cls.__base__, include_extras=True)
        for name in vars(cls).keys() & inherited.keys() - {"name"}:
            # `lr = 0.05` changes the default of an inherited field, not its type and bounds.
            cls.__annotations__.setdefault(name, inherited[name])
        if "data" in vars(cls):
            # What it is trained on is no choice any more: neither a flag nor a field.
            cls.__annotations__["dataset"] = ClassVar[str]
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        package, _, module = cls.__module__.rpartition(".")
        cls.name = module if package == "experiments" else _snake_case(cls.__name__)
        cls._file = outside_code.defining_file()

    def __post_init__(self) -> None:
        fields.check_all(self)
        if self.warmup_epochs > self.num_epochs:
            raise BadRequest(
                f"warmup_epochs: {self.warmup_epochs} is not allowed, the training has "
                f"num_epochs {self.num_epochs}."
            )
        if self.has_own_scheduler:
            for name in ("schedule", "warmup_epochs", "final_lr_fraction"):
                if getattr(self, name) != getattr(type(self), name):
                    raise BadRequest(f"{name}: {self.name} has a scheduler() of its own.")

    @property
    def has_own_scheduler(self) -> bool:
        """Whether the experiment overrides `scheduler`."""
        return type(self).scheduler is not Experiment.scheduler

    @abstractmethod
    def network(self) -> nn.Module:
        """The network with its initial weights, on the CPU.

        It maps inputs (batch, ...) to logits (batch, classes), or to numbers of the labels' shape.
        Images are (batch, channels, height, width), float32 in [0, 1]: (batch, 1, 28, 28) for the
        built-in data sets, which have ten classes.
        """

    def data(self, root: Path) -> Dataset:
        """The data set that is trained on; by default, the built-in one that `dataset` names.

        An experiment that overrides this method has no field `dataset`.

        Args:
            root: the folder of the data sets.
        """
        return open_dataset(self.dataset, root)

    def augment(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs of a training batch as they are trained on; by default, as they are.

        Draw random numbers from the generators of the process, such as `torch.rand` does: they are
        the training's own.

        Args:
            inputs: (batch, ...), on the device, a copy.
        """
        return inputs

    def loss(self) -> nn.Module:
        """The loss of the network's outputs and the labels, a mean over the batch."""
        return nn.CrossEntropyLoss()

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer: vanilla SGD."""
        return VanillaSGD(parameters, lr=self.lr)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, num_updates: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """A learning rate schedule, stepped after each update; None if there is none.

        By default it is what `schedule` and `warmup_epochs` say.

        Args:
            num_updates: updates of the whole training.
        """
        if self.schedule == "constant" and not self.warmup_epochs:
            return None
        warmup = self.warmup_epochs * num_updates / self.num_epochs
        return Schedule(self.schedule, num_updates, warmup, self.final_lr_fraction).of(optimizer)

    def metrics(self) -> dict[str, Metric]:
        """What is measured on each set of examples after each epoch, beside the loss, by name.

        The first one judges a run, if it has a direction; otherwise the loss does. A metric may
        not draw random numbers. By default there is the accuracy alone.
        """
        return {"accuracy": ACCURACY}

    def directions(self) -> dict[str, Best | None]:
        """What is best for each metric, for the loss, and for those of averaged weights.

        Raises:
            BadRequest: `metrics()` returns something else than metrics by name.
        """
        return directions(self.metrics(), with_averages=self.average_weights != "off")

    def observe(self, training: ObservedTraining) -> dict[str, float]:
        """Further numbers of the epoch that has just ended, recorded under their own names.

        The gradients are those of the last batch. By default there are no such numbers.
        """
        return {}

    def update(
        self,
        network: nn.Module,
        loss_fn: nn.Module,
        optimizer: torch.optim.Optimizer,
        inputs: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the parameters from one batch: the five steps of every training.

        One that replaces it takes the gradients of `scaled_loss`, so that `loss_scale` holds.

        Args:
            inputs: (batch, ...), after `augment`.
            labels: (batch,), int64 for classes; or (batch, ...), float32.

        Returns:
            The outputs of the network and the loss, both from before the update.
        """
        logits: torch.Tensor = network(inputs)
        loss: torch.Tensor = loss_fn(logits, labels)
        optimizer.zero_grad()
        self.scaled_loss(loss, labels).backward()
        optimizer.step()
        return logits, loss

    def scaled_loss(self, loss: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, weighed as `loss_scale` says, for its gradients."""
        if self.loss_scale == "batch" or len(labels) == self.batch_size:
            return loss
        return loss * (len(labels) / self.batch_size)

    def fields(self) -> dict[str, Any]:
        """Every field and its value as it is recorded; enough to construct the experiment again."""
        return {f.name: fields.as_recorded(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def parameters(self) -> dict[str, Any]:
        """The recorded parameters: the fields, then the derived properties."""
        derived = inspect.getmembers(type(self), lambda member: isinstance(member, property))
        own = [name for name, _ in derived if name not in vars(Experiment)]
        return self.fields() | {name: self._derived(name) for name in own}

    def _derived(self, name: str) -> Any:
        """The value of a property, as it is recorded."""
        value = getattr(self, name)
        if not isinstance(value, fields.RECORDABLE):
            raise BadRequest(
                f"{type(self).__name__}: the property {name} is recorded as a parameter: expected "
                f"a number or text, got a {type(value).__name__}. Make it a method."
            )
        return fields.as_recorded(value)

    @classmethod
    def source_digest(cls) -> str:
        """SHA-256 of the file or cell that defines the experiment; "unknown" without its source."""
        if code := cls.outside_code():
            return code.own_digest
        try:
            return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
        except (OSError, TypeError):
            return "unknown"

    @classmethod
    def sources(cls) -> dict[str, str]:
        """Digests of the project's files that the experiment is made of, by their paths.

        Those of its file and of the modules that it imports; of one that is in no file of the
        project, the digest of its class, if that is known.
        """
        code = cls.outside_code()
        if code and not code.is_in_project:
            return {cls.__name__: code.class_digest} if code.class_digest else {}
        return discovery.sources_of(Path(cls._file).resolve())

    @classmethod
    def outside_code(cls) -> OutsideCode | None:
        """The code of an experiment that is in no file of `experiments/`; None if it is in one."""
        if Path(cls._file).resolve() == project.root() / "experiments" / f"{cls.name}.py":
            return None
        return outside_code.outside_code(cls, cls._file)

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {
            f.name: fields.as_recorded(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        }

    def label(self) -> str:
        """What tells it from other runs of the experiment: `lr=0.05 hidden_width=512`.

        Data, length and seed come last; where nothing differs from the defaults, its name.
        """
        changes = self.changes()
        last = [name for name in CIRCUMSTANCES if name in changes]
        names = [name for name in changes if name not in last] + last
        return assignments({name: changes[name] for name in names}) or self.name

    def __str__(self) -> str:
        """The name and what differs from the defaults: `baseline lr=0.05 hidden_width=512`."""
        return f"{self.name} {assignments(self.changes())}".rstrip()


def load_experiment(name: str) -> type[Experiment]:
    """The experiment class of `experiments/<name>.py`.

    Raises:
        BadRequest: there is no such file, it cannot be imported, or it does not define exactly
            one experiment.
    """
    return experiment_class(discovery.load_module("experiments", name))


def experiment_class(module: ModuleType) -> type[Experiment]:
    """The one experiment class that a module defines (imported ones do not count)."""
    classes = [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, Experiment)
        and member.__module__ == module.__name__
    ]
    if len(classes) != 1:
        found = ", ".join(c.__name__ for c in classes) or "none"
        raise BadRequest(
            f"{module.__file__}: an experiment file defines one subclass of Experiment, "
            f"this one has {found}."
        )
    if inspect.isabstract(classes[0]):
        raise BadRequest(f"{module.__file__}: {classes[0].__name__} does not define network().")
    fields.check_declaration(classes[0])
    return classes[0]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
