"""Trials as trainings: claimed, recorded, reported, told how they ended, whatever goes wrong."""

from __future__ import annotations

import math
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import DATA, MACHINE, MemoryRecorder, ScriptedGroup, epoch
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.baseline import Baseline
from harness import FloatDistribution, Study
from harness.base.errors import RunFailed
from harness.base.signals import Interrupted
from harness.cli.study_progress import StudyLines
from harness.execution.driver import drive
from harness.execution.events import Begun, Ending
from harness.search import trial_queue
from harness.search.opening import open_study
from harness.search.storage import StoredStudy, open_storage, storage_url
from harness.search.trial_queue import Search, count
from harness.tracking.messages import EndRun, LogEpoch, Message, StartRun
from harness.training.device import Execution
from harness.workers.progress import StudyProgress, WorkerState
from harness.workers.study_context import StudyContext
from harness.workers.trial_source import TrialSource

EXPERIMENT = Baseline(dataset="digits", num_epochs=2, validation_size=100)


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage whose tables exist: to create them takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("trial-source") / "optuna.db"
    open_storage(storage_url(f"sqlite:///{path}"))
    return path


@pytest.fixture
def search(tmp_path: Path, empty_storage: Path) -> Search:
    with sqlite3.connect(empty_storage) as database:
        database.execute("VACUUM INTO ?", (str(tmp_path / "optuna.db"),))
    url = storage_url(f"sqlite:///{tmp_path}/optuna.db")
    return search_of(Study(experiment=EXPERIMENT, space={"lr": FloatDistribution(0.01, 1)}), url)


def search_of(study: Study, url: str, n_trials: int = 3) -> Search:
    return Search(study=study, study_name="a", url=url, n_trials=n_trials, pruner="none")


class Searched:
    """A search, driven to its end with trainings that a script describes."""

    def __init__(
        self,
        search: Search,
        script: Callable[[Any], Sequence[Any]] = lambda _: accuracies(0.4, 0.6),
        *,
        recorder: MemoryRecorder | None = None,
        workers: int = 1,
        timeout: float | None = None,
    ) -> None:
        self.stored: StoredStudy = open_study(search)
        self.recorder = recorder or MemoryRecorder()
        counts = count(self.stored.get_trials())
        self.progress = StudyProgress(
            search.study.goals,
            search.n_trials,
            counts,
            None,
            0,
            [WorkerState() for _ in range(workers)],
        )
        self.ended = 0
        context = StudyContext(
            search,
            self.stored,
            self.recorder,
            Execution(threads=1),
            self.progress,
            StudyLines(),
            "the study's run",
        )
        self.source = TrialSource(
            context, Begun(MACHINE, DATA), timeout=timeout, on_end=self._count
        )
        self.group = ScriptedGroup(script, workers)

    def drive(self) -> list[FrozenTrial]:
        drive(self.group, self.source)
        return self.stored.get_trials()

    def _count(self) -> None:
        self.ended += 1
        self.progress.counts = count(self.stored.get_trials())


def accuracies(*values: float, loss: float = 1.0) -> list[Any]:
    return [epoch(i, value, loss, on="validation") for i, value in enumerate(values, 1)]


def outcomes(trials: Sequence[FrozenTrial]) -> list[Any]:
    return [trial.user_attrs.get("outcome") for trial in trials]


def test_the_budget_is_met_and_every_trial_recorded(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = Searched(search, workers=2)
    trials = searched.drive()
    assert outcomes(trials) == ["completed"] * 3
    assert trials[0].params == {"lr": 0.1}, "the defaults come first"
    records = [message.record for message in searched.recorder.of(StartRun)]
    assert {record.parent for record in records} == {"the study's run"}
    assert [record.user_tags["harness.trial"] for record in records] == ["0", "1", "2"]
    assert [trial.user_attrs["run_id"] for trial in trials] == ["run 1", "run 2", "run 3"]
    assert len(searched.recorder.of(LogEpoch)) == 6
    assert [end.outcome for end in searched.recorder.of(EndRun)] == ["completed"] * 3
    assert searched.ended == 3
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "[1/3] trial 0 lr=0.1: completed, 0.6000 after 2 epochs"


@pytest.mark.parametrize(
    ("script", "outcome", "value", "epochs", "state"),
    [
        (accuracies(0.4, 0.6), "completed", 0.6, 2, TrialState.COMPLETE),
        (
            [*accuracies(0.4, loss=float("nan")), Ending("diverged")],
            *("diverged", -math.inf, 1, TrialState.COMPLETE),
        ),
        (
            [*accuracies(0.4, 0.6), Ending("collapsed")],
            *("collapsed", -math.inf, 2, TrialState.COMPLETE),
        ),
        (
            [*accuracies(0.4), Ending("failed", reason="it broke")],
            *("failed", None, 1, TrialState.FAIL),
        ),
    ],
)
def test_a_study_is_told_how_a_trial_ended(
    search: Search, script: Any, outcome: str, value: Any, epochs: int, state: TrialState
) -> None:
    first = True

    def of(_: Any) -> Any:
        nonlocal first
        chosen, first = (script if first else accuracies(0.4, 0.6)), False
        return chosen

    trial = Searched(search, of).drive()[0]
    assert (trial.user_attrs["outcome"], trial.state) == (outcome, state)
    assert trial.last_step == epochs
    if state == TrialState.COMPLETE:
        assert trial.value == value
    assert trial.user_attrs["training_seconds"] == pytest.approx(0.25 * epochs)


def test_five_failures_in_a_row_stop_the_search(search: Search) -> None:
    searched = Searched(
        search_of(search.study, search.url, 30), lambda _: [Ending("failed", reason="it broke")]
    )
    trials = searched.drive()
    assert outcomes(trials) == ["failed"] * 5
    assert trial_queue.failures_in_a_row(searched.stored, trials).endswith("it broke")


def test_a_trial_that_suggest_refuses_is_recorded_as_failed(search: Search) -> None:
    def suggest(trial: Trial | FrozenTrial) -> dict[str, Any]:
        lr = trial.suggest_float("lr", 0.01, 1)
        if is_declared and trial.number == 1:
            raise ValueError("not this one")
        return {"lr": lr}

    is_declared = False
    free = search_of(Study(experiment=EXPERIMENT, suggest=suggest), search.url)
    searched = Searched(free)
    is_declared = True
    trials = searched.drive()
    assert outcomes(trials) == ["completed", "failed", "completed"]
    assert "ValueError: not this one (test_trial_source.py, line" in trials[1].user_attrs["reason"]
    assert [e.outcome for e in searched.recorder.of(EndRun)] == ["completed", "failed", "completed"]


def test_a_trial_whose_worker_dies_is_tried_again_and_not_forever(search: Search) -> None:
    lost = Ending("interrupted", reason="its worker died", is_lost=True)
    good, bad = accuracies(0.4, 0.6), [*accuracies(0.4), lost]
    searched = Searched(search, lambda e: bad if e.lr == 0.1 else good)
    trials = searched.drive()
    defaults = [trial for trial in trials if trial.params == {"lr": 0.1}]
    assert outcomes(defaults) == ["interrupted", "interrupted", "failed"]
    assert defaults[-1].user_attrs["reason"] == "its process died 3 times"
    assert count(trials).finished == 3
    assert searched.progress.workers[0].doing == "idle"


def test_an_interruption_requeues_every_running_trial(search: Search) -> None:
    interruption = Interrupted(signal.SIGTERM)
    searched = Searched(search, lambda _: [*accuracies(0.4), interruption], workers=2)
    with pytest.raises(Interrupted):
        searched.drive()
    counts = count(searched.stored.get_trials())
    assert (counts.finished, counts.running, counts.waiting) == (0, 0, 2)
    assert [end.outcome for end in searched.recorder.of(EndRun)] == ["interrupted"] * 2


def test_a_record_that_fails_is_no_failure_of_the_trial(search: Search) -> None:
    def fails(message: Message[Any]) -> Exception | None:
        return RunFailed("the recorder died") if isinstance(message, LogEpoch) else None

    searched = Searched(search, recorder=MemoryRecorder(fails))
    with pytest.raises(RunFailed, match="the recorder died"):
        searched.drive()
    counts = count(searched.stored.get_trials())
    assert (counts.finished, counts.running, counts.waiting) == (0, 0, 1)


def test_no_trial_is_claimed_after_the_time(search: Search) -> None:
    assert outcomes(Searched(search, timeout=1e-9).drive()) == [None], "it waits in the queue"


def test_a_trial_that_someone_else_has_requeued_ends_as_interrupted(search: Search) -> None:
    searched = Searched(search_of(search.study, search.url, 1))
    stored = searched.stored

    def script(_: Any) -> list[Any]:
        running = [t for t in stored.get_trials() if t.state == TrialState.RUNNING]
        if running[0].number == 0:
            trial_queue.requeue(stored, running[0], retries=0)
        return accuracies(0.4, 0.6)

    searched.group.script = script
    assert outcomes(searched.drive()) == ["interrupted", "completed"]
    assert [end.outcome for end in searched.recorder.of(EndRun)] == ["interrupted", "completed"]
