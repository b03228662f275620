"""Trainings that advance together: in this process, or behind a channel in another one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch

from harness.base.example_results import ExampleResults
from harness.base.goals import Goal
from harness.base.machine import peak_memory
from harness.base.signals import deferred
from harness.execution.events import Begun, Ending, Event
from harness.execution.failures import REASONS, ending_of, explained
from harness.execution.preparation import DataSource
from harness.execution.trained_network import Weights, encoded_weights
from harness.tracking.schema import ModelRecord, Outcome
from harness.training import checkpoint
from harness.training.device import Execution, describe
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult, Training, best_epoch
from harness.training.network_export import exported
from harness.training.predictions import inspect

Keepsake = Literal["figures", "model", "examples"]


@dataclass(frozen=True)
class TrainingTask:
    """A training as data: what a group needs to begin it, wherever it is.

    Attributes:
        with_test: whether the test examples may be read.
        evaluate_each_epoch: if not, the evaluation examples are looked at once, after the last
            epoch.
        keep: what a completed training leaves beside its numbers.
        keep_best: if given, the model that it leaves is that of the best epoch by this goal.
        log_average: whether that model has the averaged weights.
        weights: tensors that replace initial ones of the network, by their names.
        state: the state to go on from, as `checkpoint.encode` returns it.
        history: the epochs up to that state.
        time_limit: seconds of work after which its worker is killed and it has timed out; a group
            in this process cannot do that.
    """

    experiment: Experiment
    with_test: bool = True
    evaluate_each_epoch: bool = True
    keep: frozenset[Keepsake] = frozenset()
    keep_best: Goal | None = None
    log_average: bool = False
    weights: Weights = field(default_factory=dict)
    state: bytes | None = None
    history: tuple[EpochResult, ...] = ()
    time_limit: float | None = None


class TrainingGroup(Protocol):
    """Trainings that advance together, each under an index."""

    @property
    def size(self) -> int:
        """How many trainings it holds at once; the indices count from 0."""

    def begin(self, index: int, task: TrainingTask) -> None:
        """Begin a training; what becomes of it comes out of `advance`, errors included."""

    def advance(self, timeout: float | None = None) -> list[tuple[int, Event]]:
        """What happens next, by index; nothing else happens until the next call.

        Args:
            timeout: seconds after which it returns with nothing, if it can.
        """

    def stop(self, index: int, outcome: Outcome) -> None:
        """End a training after the epoch that it was last heard of; its `Ending` still follows."""

    def state(self, index: int) -> bytes:
        """The state of a training after its last epoch, as `checkpoint.encode` returns it."""


class LocalGroup:
    """A group of one, in this process."""

    size = 1

    def __init__(self, data: DataSource, execution: Execution, device: torch.device) -> None:
        self.data, self.execution, self.device = data, execution, device
        self.training: Training | None = None
        self._events: Iterator[Event] = iter(())
        self._stopped_as: Outcome | None = None

    def begin(self, index: int, task: TrainingTask) -> None:
        """See `TrainingGroup`; the network is built by the first `advance`."""
        self._stopped_as = None
        self._events = self._train(task)

    def advance(self, timeout: float | None = None) -> list[tuple[int, Event]]:
        """See `TrainingGroup`."""
        return [(0, next(self._events))]

    def stop(self, index: int, outcome: Outcome) -> None:
        """See `TrainingGroup`."""
        self._stopped_as = outcome

    def state(self, index: int) -> bytes:
        """See `TrainingGroup`."""
        assert self.training
        return checkpoint.encode(self.training.state())

    def _train(self, task: TrainingTask) -> Iterator[Event]:
        begun: Begun | None = None
        try:
            prepared = self.data.prepare(task.experiment, with_test=task.with_test)
            begun = Begun(describe(self.device), prepared.data_records())
            self.training = training = prepared.training(
                self.execution,
                self.device,
                evaluate_each_epoch=task.evaluate_each_epoch,
                keep_best=task.keep_best,
            )
            if task.weights:
                training.network.load_state_dict(task.weights, strict=False)
            if task.state is not None:
                training.restore(checkpoint.decode(task.state), task.history)
            yield replace(
                begun,
                restored=tuple(training.history),
                metrics={"model/parameters": float(training.num_parameters)},
            )
            for result in training.epochs():
                yield result
                if self._stopped_as:
                    break
        except SystemExit as error:  # no error that a line explains: it leaves a run in any case
            yield replace(ending_of(error, task.experiment), never_begun=begun)
            return
        except Exception as error:
            yield ending_of(error, task.experiment)
            return
        yield from self._end(training, task, prepared.dataset.classes)

    def _end(
        self, training: Training, task: TrainingTask, classes: tuple[str, ...] | None
    ) -> Iterator[Event]:
        outcome = self._stopped_as or ("diverged" if training.diverged else "completed")
        # The best epoch stands for a training of which it is kept, not what came after it.
        if outcome == "completed" and not task.keep_best and training.collapsed:
            outcome = "collapsed"
        model, weights, missing = None, b"", list[str]()
        digest = training.weights_digest()
        examples: dict[str, bytes] = {}
        metrics: dict[str, float] = {}
        if (peak := peak_memory()) is not None:
            metrics["memory/process_peak_bytes"] = float(peak)
        # A collapsed network is kept, to be looked at.
        if outcome in ("completed", "collapsed"):
            # The numbers are whole without figures and model, and each of these without the other.
            if "figures" in task.keep:
                try:
                    with deferred():
                        inspection = inspect(training, classes)
                except Exception as error:
                    missing.append(f"no figures: {explained(error, task.experiment)}")
                else:
                    yield inspection
            if "examples" in task.keep:
                try:
                    examples = _examples(training)
                except Exception as error:
                    missing.append(
                        f"no results on single examples: {explained(error, task.experiment)}"
                    )
            if "model" in task.keep:
                started = time.perf_counter()
                epoch = _keep_best(training)
                with training.averaged() if task.log_average else contextlib.nullcontext():
                    weights = encoded_weights(training.network.state_dict())
                    try:
                        with deferred():  # a library may swallow an interruption as it is imported
                            model = _model(training, classes, epoch, task.log_average)
                    except Exception as error:
                        missing.append(f"no model: {explained(error, task.experiment)}")
                metrics["time/model_seconds"] = time.perf_counter() - started
        yield Ending(
            outcome,
            reason=REASONS.get(outcome, ""),
            weights_sha256=digest,
            model=model,
            weights=weights,
            examples=examples,
            incomplete="; ".join(missing),
            metrics=metrics,
        )


def _examples(training: Training) -> dict[str, bytes]:
    """The results on single evaluation examples, by metric, in their stored form."""
    digest = training.evaluation_examples.digest
    return {
        f"{training.evaluated_on}/{name}": ExampleResults(values.numpy(), digest).encode()
        for name, values in training.example_results().items()
    }


def _keep_best(training: Training) -> int:
    """Give the network its best weights, if they were kept; returns the epoch of its weights."""
    if training.keep_best and training.best_weights:
        training.network.load_state_dict(training.best_weights)
        return best_epoch(training.history, training.keep_best)
    return len(training.history)


def _model(
    training: Training, classes: tuple[str, ...] | None, epoch: int, is_averaged: bool
) -> ModelRecord:
    """The network as its weights after that epoch make it."""
    # Two examples, so that the batch size stays free; the same one twice if there is but one.
    positions = torch.arange(2, device=training.device) % len(training.train_examples)
    example, _ = training.train_examples.batch(positions)
    content, output = exported(training.network, example)
    return ModelRecord(
        content,
        str(torch.__version__),
        example.tolist(),
        str(example.dtype).removeprefix("torch."),
        training.train_examples.inputs.dtype == torch.uint8,
        tuple(output.shape[1:]),
        str(output.dtype).removeprefix("torch."),
        classes,
        epoch,
        is_averaged,
    )
