"""An experiment with its data: opened, split, ready to train."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from harness.base.errors import BadRequest
from harness.base.goals import Goal
from harness.tracking.schema import DataRecord
from harness.training.datasets import DataUnavailable, Images, data_root, open_dataset
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import EvaluationSet, Training
from harness.training.metrics import checked_metrics


@dataclass(frozen=True)
class Prepared:
    """An experiment with the images that it trains on and is evaluated on.

    Attributes:
        fallback_from: the data set that was asked for, if another one stands in for it.
    """

    experiment: Experiment
    train: Images
    evaluation: Images
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
        name = self.experiment.dataset
        return tuple(
            DataRecord(name, context, images.digest, len(images))
            for context, images in (("training", self.train), (self.evaluated_on, self.evaluation))
        )


def prepare(
    experiment: Experiment,
    root: Path | None,
    fallback: Literal["digits"] | None = None,
    *,
    with_test: bool = True,
) -> Prepared:
    """Open and split the experiment's data, or the fallback's if it is unavailable.

    Without `with_test` the test images are not read, and the experiment needs a validation set.

    Raises:
        DataUnavailable: the data are unavailable, and no fallback was allowed.
        BadRequest: the data set is too small for the experiment's `validation_size`, or its
            `metrics()` are none.
    """
    checked_metrics(experiment.metrics())
    if experiment.patience and not experiment.validation_size and with_test:
        raise BadRequest(
            "patience: it needs validation images, and validation_size is 0. Set some aside: "
            "--validation-size 10000"
        )
    fallback_from = None
    try:
        dataset = open_dataset(experiment.dataset, data_root(root), with_test=with_test)
    except DataUnavailable:
        if fallback is None:
            raise
        fallback_from = experiment.dataset
        experiment = dataclasses.replace(experiment, dataset=fallback)
        dataset = open_dataset(fallback, data_root(root), with_test=with_test)
    train, validation = dataset.split(experiment.validation_size, experiment.split_seed)
    if experiment.validation_size:
        return Prepared(experiment, train, validation, "validation", fallback_from)
    if not with_test:
        raise BadRequest("validation_size: a study needs validation images, it must be at least 1.")
    return Prepared(experiment, train, dataset.test, "test", fallback_from)


class DataSource:
    """Prepares experiments from one data root; the same split of the same data is opened once."""

    def __init__(self, root: Path | None, known: Prepared | None = None) -> None:
        self._root = root
        self._known: dict[object, Prepared] = {}
        if known:
            self._known[_split_of(known.experiment, True)] = known

    def prepare(self, experiment: Experiment, *, with_test: bool) -> Prepared:
        """As the function `prepare`, without a fallback."""
        split = _split_of(experiment, with_test)
        if split not in self._known:
            self._known[split] = prepare(experiment, self._root, with_test=with_test)
        return dataclasses.replace(self._known[split], experiment=experiment)


def _split_of(experiment: Experiment, with_test: bool) -> object:
    return (
        *(experiment.dataset, experiment.validation_size, experiment.split_seed),
        with_test or not experiment.validation_size,
    )
