"""Workers of this machine, forked and started: they train, wait, stop, die and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from conftest import children_of

from experiments.baseline import Baseline
from harness.execution.events import Begun, Ending, Event
from harness.execution.preparation import DataSource
from harness.execution.training_group import TrainingTask
from harness.training import checkpoint
from harness.training.device import Execution
from harness.training.loop import EpochResult
from harness.workers import local_pool
from harness.workers.local_pool import LocalPool
from harness.workers.pool import PoolGroup, WorkerSetup

pytestmark = pytest.mark.processes

EXPERIMENT = Baseline(dataset="digits", num_epochs=3, validation_size=300)
TASK = TrainingTask(EXPERIMENT, with_test=False)


FORKED = bool(os.environ.get("HARNESS_TEST_FORKED"))
"""Set in a process of its own, in which nothing was trained: the workers are forked there."""


def test_forked_workers_do_the_same() -> None:
    if FORKED or not hasattr(os, "fork"):
        pytest.skip("this is that process, or this system cannot fork")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"HARNESS_TEST_FORKED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolGroup]:
    # The threads of this process are OpenBLAS's and idle: nothing that they hold is needed.
    monkeypatch.setattr(local_pool, "can_fork", lambda: FORKED)
    before = children_of(os.getpid())
    with closing(LocalPool(forks=True)) as pool:
        yield PoolGroup(pool, 2, WorkerSetup(Execution(threads=1), "nowhere"))
    assert set(children_of(os.getpid())) <= set(before)


def events(group: PoolGroup, index: int) -> Iterator[Event]:
    while True:
        for number, event in group.advance():
            assert number == index
            yield event
            if isinstance(event, Ending):
                return


def test_a_worker_trains_to_the_bits_of_this_process(group: PoolGroup) -> None:
    group.begin(1, TASK)
    begun, *results, ending = events(group, 1)
    assert isinstance(begun, Begun)
    assert begun.machine["threads"] == "1"
    assert [part.context for part in begun.data] == ["training", "validation"]
    program = Execution(threads=1)
    here = DataSource(None).prepare(EXPERIMENT, with_test=False).training(program, program.apply())
    for result, mine in zip(results, here.epochs(), strict=True):
        assert isinstance(result, EpochResult)
        assert result.metrics["validation/loss"] == mine.metrics["validation/loss"]
    assert isinstance(ending, Ending)
    assert (ending.outcome, ending.weights_sha256) == ("completed", here.weights_digest())


def test_a_worker_stops_and_trains_the_next(group: PoolGroup) -> None:
    group.begin(0, TASK)
    heard: list[Event] = []
    for event in events(group, 0):
        heard.append(event)
        if isinstance(event, EpochResult):
            group.stop(0, "pruned")
    assert sum(isinstance(event, EpochResult) for event in heard) == 1
    assert isinstance(heard[-1], Ending)
    assert heard[-1].outcome == "pruned"
    group.begin(0, TASK)
    assert sum(isinstance(event, EpochResult) for event in events(group, 0)) == 3


def test_a_worker_sends_the_state_of_its_training(group: PoolGroup) -> None:
    group.begin(0, TASK)
    states = [group.state(0) for event in events(group, 0) if isinstance(event, EpochResult)]
    # Those of different epochs: what is drawn next differs.
    drawn = [checkpoint.decode(state)["generators"]["torch"].numpy().tobytes() for state in states]
    assert len(set(drawn)) == len(drawn) == 3


def test_what_a_training_raises_is_its_end_and_not_the_workers(group: PoolGroup) -> None:
    too_large = TrainingTask(Baseline(dataset="digits", validation_size=5_000), with_test=False)
    group.begin(0, too_large)
    (ending,) = events(group, 0)
    assert isinstance(ending, Ending)
    assert ending.outcome == "failed"
    assert "validation_size: 5000 is not allowed" in ending.reason
    group.begin(0, TASK)
    assert [e.outcome for e in events(group, 0) if isinstance(e, Ending)] == ["completed"]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_killed_worker_is_replaced(group: PoolGroup) -> None:
    group.begin(0, TASK)
    for event in events(group, 0):
        if isinstance(event, EpochResult):
            for child in children_of(os.getpid()):
                os.kill(child, signal.SIGKILL)
    assert isinstance(event, Ending)
    assert event.is_lost
    assert "SIGKILL" in event.reason
    group.begin(0, TASK)
    assert [e.outcome for e in events(group, 0) if isinstance(e, Ending)] == ["completed"]


@pytest.mark.skipif(not FORKED, reason="it forks")
def test_workers_end_with_the_process_that_drives_them(tmp_path: Path) -> None:
    """In the middle of an epoch, and without a word."""
    names = tmp_path / "workers"
    pid = os.fork()
    if not pid:
        try:
            pool = LocalPool(forks=True)
            group = PoolGroup(pool, 2, WorkerSetup(Execution(threads=1), "nowhere"))
            endless = TrainingTask(Baseline(dataset="digits", num_epochs=10**6))
            group.begin(0, endless)
            event: Event | None = None
            while not isinstance(event, EpochResult):
                ((_, event),) = group.advance()
                assert not isinstance(event, Ending), event
            names.write_text(" ".join(map(str, children_of(os.getpid()))))
        except BaseException as error:
            names.write_text(repr(error))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    told = names.read_text()
    assert re.fullmatch(r"\d+ \d+", told), told
    workers = [int(word) for word in told.split()]
    _, left = psutil.wait_procs([psutil.Process(w) for w in workers if psutil.pid_exists(w)], 10)
    assert left == []
