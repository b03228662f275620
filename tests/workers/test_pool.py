"""A worker pool as one training group: who is told what, and when."""

from __future__ import annotations

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
