"""The driver: every training gets its events in order, and an end, whatever goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

import pytest
from fakes import ScriptedGroup, epoch

from experiments.baseline import Baseline
from harness.base import signals
from harness.base.errors import RunFailed
from harness.base.inspection import Inspection
from harness.base.signals import Interrupted
from harness.execution.driver import Callback, Driven, InTurn, drive
from harness.execution.events import Begun, Ending
from harness.execution.training_group import TrainingTask
from harness.tracking.schema import Outcome
from harness.training.loop import EpochResult


class Heard(Callback):
    """Notes what it hears under a name; raises or stops when told to."""

    def __init__(
        self,
        log: list[Any],
        name: str,
        *,
        stops_at: int = 0,
        raises_at: int = 0,
        error: BaseException | None = None,
    ) -> None:
        self.log, self.name = log, name
        self.stops_at, self.raises_at, self.error = stops_at, raises_at, error
        self.ending: Ending | None = None

    def begun(self, event: Begun) -> None:
        self.log.append((self.name, "begun"))

    def epoch(self, result: EpochResult) -> Outcome | None:
        self.log.append((self.name, result.epoch))
        if result.epoch == self.raises_at and self.error:
            raise self.error
        return "pruned" if result.epoch == self.stops_at else None

    def inspected(self, inspection: Inspection) -> None:
        self.log.append((self.name, "inspected"))

    def ended(self, ending: Ending) -> None:
        self.log.append((self.name, ending.outcome))
        assert self.ending is None, "a training ends once"
        self.ending = ending


def two_epochs(_: Any) -> list[EpochResult]:
    return [epoch(1), epoch(2)]


def driven(*callbacks: Callback) -> Driven:
    return Driven(TrainingTask(Baseline()), callbacks)


def test_callbacks_are_called_in_their_order_at_every_event() -> None:
    log: list[Any] = []
    drive(ScriptedGroup(two_epochs), InTurn([driven(Heard(log, "a"), Heard(log, "b"))]))
    assert log == [
        *(("a", "begun"), ("b", "begun"), ("a", 1), ("b", 1), ("a", 2), ("b", 2)),
        *(("a", "completed"), ("b", "completed")),
    ]


def test_a_training_that_is_stopped_trains_no_further_epoch() -> None:
    log: list[Any] = []
    group = ScriptedGroup(two_epochs)
    drive(group, InTurn([driven(Heard(log, "a", stops_at=1))]))
    assert log == [("a", "begun"), ("a", 1), ("a", "pruned")]
    assert group.log == [("begin", 0), ("stop", 0, "pruned")]


def test_trainings_in_turn_begin_when_the_one_before_has_ended() -> None:
    log: list[Any] = []
    drive(ScriptedGroup(two_epochs), InTurn([driven(Heard(log, "a")), driven(Heard(log, "b"))]))
    assert log.index(("a", "completed")) < log.index(("b", "begun"))


def test_a_group_of_several_is_kept_full() -> None:
    log: list[Any] = []
    group = ScriptedGroup(two_epochs, size=2)
    drive(group, InTurn(driven(Heard(log, name)) for name in "abcd"))
    assert [entry[1] for entry in group.log] == [0, 1, 0, 1]
    assert log.index(("b", "begun")) < log.index(("a", 1)), "two at once"
    assert sum(what == "completed" for _, what in log) == 4


def test_what_a_callback_raises_ends_every_training_as_failed() -> None:
    log: list[Any] = []
    first = Heard(log, "a", raises_at=1, error=RunFailed("the disk is full"))
    second = Heard(log, "b")
    with pytest.raises(RunFailed, match="the disk is full"):
        drive(ScriptedGroup(two_epochs, size=2), InTurn([driven(first), driven(second)]))
    for heard in (first, second):
        assert heard.ending
        assert (heard.ending.outcome, heard.ending.reason) == ("failed", "the disk is full")
        assert heard.ending.is_blameless
    assert ("a", 2) not in log


def test_a_callback_that_fails_again_at_the_end_does_not_hide_the_first_error() -> None:
    class FailsAtTheEnd(Callback):
        def ended(self, ending: Ending) -> None:
            raise RunFailed("the second error")

    log: list[Any] = []
    last = Heard(log, "b", raises_at=1, error=RunFailed("the first error"))
    with pytest.raises(RunFailed, match="the first error"):
        drive(ScriptedGroup(two_epochs), InTurn([driven(FailsAtTheEnd(), last)]))
    assert last.ending, "the callbacks after it hear of the end"


def test_an_end_that_cannot_be_recorded_is_none_for_the_callbacks_after_it() -> None:
    class FailsAtTheEnd(Callback):
        def ended(self, ending: Ending) -> None:
            raise RunFailed("nothing more can be recorded")

    log: list[Any] = []
    before, after = Heard(log, "a"), Heard(log, "b")
    with pytest.raises(RunFailed, match="nothing more"):
        drive(ScriptedGroup(two_epochs), InTurn([driven(before, FailsAtTheEnd(), after)]))
    assert before.ending
    assert before.ending.outcome == "completed"
    assert after.ending
    assert after.ending.outcome == "failed"
    assert after.ending.is_blameless


@pytest.mark.parametrize("interruption", [Interrupted(signal.SIGTERM), KeyboardInterrupt()])
def test_an_interruption_ends_every_training_as_interrupted(interruption: BaseException) -> None:
    log: list[Any] = []
    script: Iterable[Any] = [epoch(1), interruption]
    heard = [Heard(log, "a"), Heard(log, "b")]
    with pytest.raises(type(interruption)):
        drive(ScriptedGroup(lambda _: list(script), size=2), InTurn(map(driven, heard)))
    assert [h.ending.outcome for h in heard if h.ending] == ["interrupted"] * 2


def test_a_training_that_is_taken_during_an_interruption_is_ended() -> None:
    class InterruptedWhileTaking(InTurn):
        def take(self, index: int) -> Driven | None:
            taken = super().take(index)
            signal.raise_signal(signal.SIGTERM)
            return taken

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = Heard([], "a")
    signals.install()
    try:
        with pytest.raises(Interrupted):
            drive(ScriptedGroup(two_epochs), InterruptedWhileTaking([driven(heard)]))
    finally:
        signals.install()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert heard.ending
    assert heard.ending.outcome == "interrupted"


def test_a_source_that_has_nothing_now_is_asked_again() -> None:
    class Hesitant:
        def __init__(self) -> None:
            self.asked = 0

        @property
        def is_exhausted(self) -> bool:
            return self.asked > 2

        def take(self, index: int) -> Driven | None:
            self.asked += 1
            return driven(Heard(log, "late")) if self.asked == 2 else None

    log: list[Any] = []
    drive(ScriptedGroup(two_epochs), Hesitant())
    assert ("late", "completed") in log
