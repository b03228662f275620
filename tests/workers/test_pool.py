"""A worker pool as one training group: who is told what, and when."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from typing import Any

import pytest
from fakes import DATA, MACHINE, epoch

from experiments.baseline import Baseline
from harness.base.errors import RunFailed
from harness.execution.events import Begun, Ending
from harness.execution.training_group import TrainingTask
from harness.training.device import Execution
from harness.workers.pool import (
    AskState,
    AtWork,
    BeginTraining,
    Died,
    FromWorker,
    GoOn,
    PoolGroup,
    StopTraining,
    ToWorker,
    TrainingState,
    WorkerSetup,
)

TASK = TrainingTask(Baseline())
SETUP = WorkerSetup(Execution(threads=1), "data")


class PoolByHand:
    """Gives out the messages that a test has put in, and notes what was sent."""

    def __init__(self) -> None:
        self.incoming: deque[tuple[int, FromWorker]] = deque()
        self.log: list[Any] = []

    def start(self, number: int, setup: WorkerSetup) -> None:
        self.log.append(("start", number))

    def send(self, number: int, message: ToWorker) -> None:
        self.log.append((number, message))

    def receive(self, timeout: float | None = None) -> tuple[int, FromWorker] | None:
        if not self.incoming:
            assert timeout is not None, "nobody would ever answer"
            return None
        return self.incoming.popleft()

    def kill(self, number: int) -> None:
        self.log.append(("kill", number))

    def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def pool() -> PoolByHand:
    return PoolByHand()


@pytest.fixture
def group(pool: PoolByHand) -> PoolGroup:
    group = PoolGroup(pool, 2, SETUP)
    pool.log.clear()
    return group


def test_all_workers_start_with_the_group(pool: PoolByHand) -> None:
    PoolGroup(pool, 3, SETUP)
    assert pool.log == [("start", 0), ("start", 1), ("start", 2)]


def test_a_worker_goes_on_when_its_epoch_has_been_dealt_with(
    pool: PoolByHand, group: PoolGroup
) -> None:
    group.begin(1, TASK)
    assert pool.log == [(1, BeginTraining(TASK))]
    begun = Begun(MACHINE, DATA)
    pool.incoming += [(1, begun), (1, epoch(1)), (1, Ending("completed"))]
    assert group.advance() == [(1, begun)]
    assert group.advance() == [(1, epoch(1))]
    assert pool.log[1:] == [], "the epoch is not recorded yet"
    assert group.advance() == [(1, Ending("completed"))]
    assert pool.log[1:] == [(1, GoOn())]


def test_a_stopped_worker_is_not_told_to_go_on(pool: PoolByHand, group: PoolGroup) -> None:
    group.begin(0, TASK)
    pool.incoming += [(0, epoch(1)), (0, Ending("pruned"))]
    group.advance()
    group.stop(0, "pruned")
    assert group.advance() == [(0, Ending("pruned"))]
    assert pool.log[1:] == [(0, StopTraining("pruned"))]


def test_nothing_happens_within_the_time(group: PoolGroup) -> None:
    assert group.advance(timeout=0.0) == []


def test_a_worker_that_dies_loses_its_training_and_is_started_for_the_next(
    pool: PoolByHand, group: PoolGroup
) -> None:
    group.begin(0, TASK)
    pool.incoming.append((0, Died("killed by SIGKILL")))
    ((index, ending),) = group.advance()
    assert isinstance(ending, Ending)
    assert (index, ending.outcome, ending.is_lost) == (0, "interrupted", True)
    assert "killed by SIGKILL" in ending.reason
    pool.log.clear()
    group.begin(0, TASK)
    group.begin(1, TASK)
    assert pool.log == [("start", 0), (0, BeginTraining(TASK)), (1, BeginTraining(TASK))]


def test_a_worker_that_dies_idle_costs_nothing(pool: PoolByHand, group: PoolGroup) -> None:
    pool.incoming.append((1, Died("status 1")))
    assert group.advance() == []


def test_the_state_comes_between_the_messages_of_others(pool: PoolByHand, group: PoolGroup) -> None:
    pool.incoming += [(1, epoch(7)), (0, TrainingState(b"state"))]
    assert group.state(0) == b"state"
    assert pool.log == [(0, AskState())]
    assert group.advance() == [(1, epoch(7))]


def test_a_dead_worker_has_no_state(pool: PoolByHand, group: PoolGroup) -> None:
    group.begin(0, TASK)
    pool.incoming.append((0, Died("status 3")))
    with pytest.raises(RunFailed, match=r"worker 0 died \(status 3\)"):
        group.state(0)
    ((_, ending),) = group.advance()
    assert isinstance(ending, Ending)
    assert ending.is_lost


BOUNDED = dataclasses.replace(TASK, time_limit=0.05)


def test_a_worker_that_takes_too_long_is_killed_and_started_for_the_next(
    pool: PoolByHand, group: PoolGroup
) -> None:
    group.begin(0, BOUNDED)
    pool.incoming.append((0, AtWork(1.0)))  # more than it may in all
    ended = group.advance()
    assert ended == [(0, Ending("timed out", reason="took longer than 0.05 s"))]
    assert pool.log[-1] == ("kill", 0)
    group.begin(0, BOUNDED)
    assert pool.log[-2:] == [("start", 0), (0, BeginTraining(BOUNDED))]


def test_the_time_begins_with_the_work_and_stands_still_between_epochs(
    pool: PoolByHand, group: PoolGroup
) -> None:
    group.begin(0, BOUNDED)
    time.sleep(0.1)  # the worker imports torch
    assert group.advance(timeout=0.0) == []
    pool.incoming += [(0, AtWork(0.0)), (0, epoch(1))]
    assert group.advance() == [(0, epoch(1))]
    time.sleep(0.1)  # the epoch is recorded
    assert group.advance(timeout=0.0) == []
    assert "kill" not in str(pool.log)
    pool.incoming.append((0, AtWork(0.01)))
    while not (ended := group.advance(timeout=0.0)):
        time.sleep(0.01)
    assert ended == [(0, Ending("timed out", reason="took longer than 0.05 s"))]


@pytest.mark.parametrize("last", [epoch(1), Ending("completed")], ids=["epoch", "end"])
def test_what_has_arrived_is_in_time_however_late_it_is_read(
    pool: PoolByHand, group: PoolGroup, last: Any
) -> None:
    group.begin(0, BOUNDED)
    group.begin(1, BOUNDED)
    pool.incoming += [(0, AtWork(0.0)), (1, AtWork(0.0))]
    assert group.advance(timeout=0.0) == []
    time.sleep(0.1)  # this process is busy with something else
    pool.incoming += [(1, Begun(MACHINE, DATA)), (0, Begun(MACHINE, DATA)), (0, last)]
    heard = [event for _ in range(4) for event in group.advance()]
    assert heard[:3] == [(1, Begun(MACHINE, DATA)), (0, Begun(MACHINE, DATA)), (0, last)]
    assert heard[3][0] == 1
    assert [entry for entry in pool.log if "kill" in entry] == [("kill", 1)]


def test_without_a_limit_a_training_takes_its_time(pool: PoolByHand, group: PoolGroup) -> None:
    group.begin(0, TASK)
    pool.incoming.append((0, AtWork(1e9)))
    assert group.advance(timeout=0.0) == []
    assert "kill" not in str(pool.log)


def test_a_limit_of_many_years_can_be_waited_for(pool: PoolByHand, group: PoolGroup) -> None:
    waited: list[float | None] = []
    group.begin(0, dataclasses.replace(TASK, time_limit=1e300))
    pool.incoming.append((0, AtWork(0.0)))
    group.advance(timeout=0.0)
    pool.receive = lambda timeout=None: waited.append(timeout)  # type: ignore[method-assign]
    assert group.advance() == []
    assert waited == [60.0]
