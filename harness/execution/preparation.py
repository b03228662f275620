"""An experiment with its data: opened, split, ready to train."""

from __future__ import annotations

import dataclasses
import inspect
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from harness.base.errors import BadRequest
from harness.base.goals import Goal
from harness.execution.failures import explained
from harness.tracking.schema import DataRecord
from harness.training.builtin_datasets import data_root
from harness.training.dataset import Dataset, Examples
from harness.training.device import Execution
from harness.training.downloads import DataUnavailable
from harness.training.experiment import Experiment
from harness.training.loop import EvaluationSet, Training, updates_per_epoch
from harness.training.metrics import ACCURACY

KEPT = 4
"""Data sets that stay open; a study that searches how its data are made opens one after another."""


@dataclass(frozen=True)
class Prepared:
    """An experiment with the examples that it trains on and is evaluated on.

    Attributes:
        fallback_from: the data set that was asked for, if another one stands in for it.
    """

    experiment: Experiment
    dataset: Dataset
    train: Examples
    evaluation: Examples
    evaluated_on: EvaluationSet
    fallback_from: str | None = None

    def training(
        self,
        execution: Execution,
        device: torch.device,
        *,
        evaluate_each_epoch: bool = True,
        keep_best: Goal | None = None,
    ) -> Training:
        """The training at its beginning; see `Training`. Raises whatever the experiment raises."""
        return Training(
            self.experiment,
            self.train,
            self.evaluation,
            self.evaluated_on,
            execution,
            device,
            evaluate_each_epoch,
            keep_best,
        )

    def data_records(self) -> tuple[DataRecord, ...]:
        """Digests and sizes of the sets that the training sees."""
        return tuple(
            DataRecord(self.dataset.name, context, examples.digest, len(examples))
            for context, examples in (
                ("training", self.train),
                (self.evaluated_on, self.evaluation),
            )
        )


@dataclass
class _Opened:
    """A data set with what it was made from and the parts it was split into.

    Attributes:
        make: the method that made it.
        fields: those that the method read, with their values.
        splits: by size, seed and kind.
    """

    make: object
    fields: dict[str, Any]
    dataset: Dataset
    splits: dict[object, tuple[Examples, Examples]] = field(default_factory=dict)


class DataSource:
    """Opens and splits the data of experiments; what is the same is opened and split once."""

    def __init__(self, root: Path | None) -> None:
        """Open data sets below `root`, or by default where `data_root` says."""
        self._root = root
        self._opened: list[_Opened] = []

    def dataset(self, experiment: Experiment) -> Dataset:
        """The experiment's data set.

        Raises:
            DataUnavailable: its data are unavailable.
            BadRequest: something is wrong with them.
        """
        return self._open(experiment).dataset

    def prepare(
        self,
        experiment: Experiment,
        *,
        with_test: bool = True,
        fallback: Literal["digits"] | None = None,
    ) -> Prepared:
        """Open and split the experiment's data, or the fallback's if they are unavailable.

        Without `with_test` the test examples are not read, and the experiment needs a validation
        set.

        Raises:
            DataUnavailable: the data are unavailable, and no fallback was allowed.
            BadRequest: the data set is too small for the experiment's `validation_size` or
                `batch_size`, or does not go with its metrics or loss; or its `metrics()` are none.
        """
        experiment.directions()  # an error of theirs is told before the data are opened
        if experiment.patience and not experiment.validation_size and with_test:
            raise BadRequest(
                "patience: it needs validation examples, and validation_size is 0. Set some aside: "
                "--validation-size 10000"
            )
        if fallback and "dataset" not in experiment.fields():
            raise BadRequest(
                f"fallback: {experiment.name} has its own data; digits cannot stand in for them."
            )
        fallback_from = None
        try:
            opened = self._open(experiment)
        except DataUnavailable:
            if fallback is None:
                raise
            fallback_from = experiment.dataset
            experiment = dataclasses.replace(experiment, dataset=fallback)
            opened = self._open(experiment)
        dataset = opened.dataset
        _check_kind(experiment, dataset)
        size, seed = experiment.validation_size, experiment.split_seed
        key = (size, seed, experiment.stratify)
        if key not in opened.splits:
            opened.splits[key] = dataset.split(size, seed, stratify=experiment.stratify)
        train, validation = opened.splits[key]
        updates_per_epoch(experiment, len(train))
        if size:
            return Prepared(experiment, dataset, train, validation, "validation", fallback_from)
        if not with_test:
            raise BadRequest(
                "validation_size: a study needs validation examples, it must be at least 1."
            )
        try:
            test = dataset.test
        except (Exception, SystemExit) as error:  # a function of the user's may read them
            raise explained(error, experiment) from error
        return Prepared(experiment, dataset, train, test, "test", fallback_from)

    def _open(self, experiment: Experiment) -> _Opened:
        make = type(experiment).data
        for known in self._opened:
            if known.make is make and all(
                getattr(experiment, name) == value for name, value in known.fields.items()
            ):
                return known
        watched = _Watched(experiment)
        try:
            dataset = make(watched, data_root(self._root))  # type: ignore[arg-type]
        except (Exception, SystemExit) as error:
            raise explained(error, experiment) from error
        if not isinstance(dataset, Dataset):
            raise BadRequest(f"data(): expected a Dataset, got a {type(dataset).__name__}.")
        self._opened = [
            *self._opened[1 - KEPT :],
            _Opened(make, watched._read, dataset),
        ]
        return self._opened[-1]


class _Watched:
    """Stands in for an experiment and remembers which of its fields are read."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._read: dict[str, Any] = {}

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._experiment)

    def __getattr__(self, name: str) -> Any:
        on_class = inspect.getattr_static(type(self._experiment), name, None)
        if isinstance(on_class, types.FunctionType):
            return types.MethodType(on_class, self)
        if isinstance(on_class, property) and on_class.fget:
            return on_class.fget(self)
        value = getattr(self._experiment, name)
        if name in self._experiment.fields():
            self._read[name] = value
        return value


def _check_kind(experiment: Experiment, dataset: Dataset) -> None:
    """Check that an experiment whose labels are numbers says how to measure them."""
    if dataset.classes is not None:
        return
    if any(metric is ACCURACY for metric in experiment.metrics().values()):
        raise BadRequest(
            f"metrics(): accuracy needs classes, and the labels of {dataset.name} are numbers. "
            "Override metrics(); with `return {}` the loss alone is measured."
        )
    if type(experiment).loss is Experiment.loss:
        raise BadRequest(
            f"loss(): cross-entropy needs classes, and the labels of {dataset.name} are numbers. "
            "Override loss(), for example with `return nn.MSELoss()`."
        )
