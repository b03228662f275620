"""The one loop that drives trainings: runs, trials, confirmations, in this process or in others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from harness.base.errors import RunFailed
from harness.base.inspection import Inspection
from harness.base.signals import deferred, raise_pending
from harness.execution.events import Begun, Ending, Event
from harness.execution.failures import ending_of
from harness.execution.training_group import TrainingGroup, TrainingTask
from harness.tracking.schema import Outcome
from harness.training.loop import EpochResult

POLL_SECONDS = 0.2
"""How often to ask a source again that has no training to give while other workers are busy."""


class Callback:
    """Is called with each event of one training; every method does nothing unless overridden."""

    def begun(self, event: Begun) -> None:
        """The training is about to begin."""

    def epoch(self, result: EpochResult) -> Outcome | None:
        """An epoch is over. Returns an outcome if the training is to stop with it."""
        return None

    def inspected(self, inspection: Inspection) -> None:
        """The predictions of the trained network."""

    def ended(self, ending: Ending) -> None:
        """The training is over; nothing comes after this."""


@dataclass(frozen=True)
class Driven:
    """A training to drive.

    Attributes:
        callbacks: called in this order at every event: checkpoint, record, prune or stop, screen.
    """

    task: TrainingTask
    callbacks: Sequence[Callback]


class Source(Protocol):
    """Gives trainings to the free places of a group."""

    @property
    def is_exhausted(self) -> bool:
        """Whether `take` will never give another training, whatever becomes of the others."""

    def take(self, index: int) -> Driven | None:
        """The next training for the place `index`; None if there is none now."""


class InTurn:
    """A source that gives trainings one after another."""

    def __init__(self, trainings: Iterable[Driven]) -> None:
        self._trainings = iter(trainings)
        self.is_exhausted = False

    def take(self, index: int) -> Driven | None:
        """See `Source`."""
        driven = next(self._trainings, None)
        self.is_exhausted = driven is None
        return driven


def drive(group: TrainingGroup, source: Source) -> None:
    """Drive what a source gives until it is exhausted, as many at once as the group holds.

    Whatever a training raises is its own `Ending`. What a callback or the source raises (a full
    disk, a lost storage, an interruption) ends all trainings and is raised.

    Raises:
        Interrupted: the process was asked to end; the callbacks have heard of it.
        RunFailed, BadRequest: a callback or the source raised it.
    """
    active: dict[int, Driven] = {}
    try:
        while True:
            for index in range(group.size):
                if index in active:
                    continue
                with deferred():  # what was taken is always ended
                    driven = source.take(index)
                    if driven:
                        active[index] = driven
                if driven:
                    group.begin(index, driven.task)
            if not active:
                if source.is_exhausted:
                    return
                time.sleep(POLL_SECONDS)
                continue
            waits = len(active) < group.size and not source.is_exhausted
            for index, event in group.advance(POLL_SECONDS if waits else None):
                with deferred():
                    _pass_on(group, index, event, active)
            raise_pending()
    except BaseException as error:
        with deferred():
            for driven in active.values():
                _end(driven, driven.callbacks, error)
        raise


def _end(driven: Driven, callbacks: Sequence[Callback], error: BaseException) -> None:
    """Tell callbacks that a training ends for a reason that is not its own."""
    ending = replace(ending_of(error, driven.task.experiment), is_blameless=True)
    for callback in callbacks:
        with contextlib.suppress(RunFailed):  # the first error matters more
            callback.ended(ending)


def _pass_on(group: TrainingGroup, index: int, event: Event, active: dict[int, Driven]) -> None:
    driven = active[index]
    if isinstance(event, Ending):
        del active[index]
    for position, callback in enumerate(driven.callbacks):
        match event:
            case Begun():
                callback.begun(event)
            case EpochResult():
                if outcome := callback.epoch(event):
                    group.stop(index, outcome)
            case Inspection():
                callback.inspected(event)
            case Ending():
                try:
                    callback.ended(event)
                except BaseException as error:
                    # Those that have not ended yet must hear that the end was not recorded.
                    _end(driven, driven.callbacks[position:], error)
                    raise
