"""Runs and groups of seeds: what is recorded, in which order, however they end."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes import MACHINE, MemoryRecorder, ScriptedGroup, epoch
from torch import nn

from experiments.baseline import Baseline
from experiments.softmax_regression import SoftmaxRegression
from harness.base import project
from harness.base.errors import RunFailed
from harness.base.signals import Interrupted
from harness.cli.run_progress import summary
from harness.execution.events import Begun, Ending
from harness.execution.launch import repeat, run
from harness.execution.preparation import DataSource
from harness.execution.specification import RunSpecification
from harness.execution.training_group import LocalGroup
from harness.tracking.messages import (
    DrawFigures,
    EndRun,
    LogEpoch,
    LogModel,
    Message,
    SaveArtifacts,
    StartRun,
)
from harness.training import checkpoint
from harness.training.device import Execution, describe

EXPERIMENT = SoftmaxRegression(dataset="digits", num_epochs=2)
EXECUTION = Execution(threads=1)
CONFIRMATION = RunSpecification(kind="confirm", parent="study")


@pytest.fixture(autouse=True)
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(project, "mlruns", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


def local_group(experiment: Baseline | SoftmaxRegression = EXPERIMENT) -> LocalGroup:
    return LocalGroup(DataSource(None), EXECUTION, EXECUTION.apply())


def kinds(recorder: MemoryRecorder) -> list[type[Any]]:
    return [type(message) for message in recorder.messages]


def test_a_run_is_saved_and_recorded_epoch_by_epoch(recorder: MemoryRecorder, mlruns: Path) -> None:
    result = run(EXPERIMENT, local_group(), EXECUTION, recorder)
    assert kinds(recorder) == [
        *(StartRun, LogEpoch, LogEpoch, DrawFigures, LogModel, SaveArtifacts, SaveArtifacts, EndRun)
    ]
    (end,) = recorder.of(EndRun)
    assert (end.run_id, end.outcome, end.epoch) == ("run 1", "completed", 2)
    assert end.tags["weights_sha256"] == result.weights_sha256
    assert f"test | {result.metrics['test/loss']:.4f}" in end.description
    assert [e.metrics for e in result.epochs] == [m.metrics for m in recorder.of(LogEpoch)]
    assert end.metrics["model/parameters"] == 7850
    saved = [checkpoint.load(p) for p in checkpoint.latest_first(mlruns / "checkpoints" / "run 1")]
    assert [(state.run, state.experiment, state.epoch) for state in saved] == [
        ("run 1", EXPERIMENT.name, 2),
        ("run 1", EXPERIMENT.name, 1),
    ]


def test_an_epoch_is_saved_before_it_is_recorded(mlruns: Path) -> None:
    def fails(message: Message[Any]) -> Exception | None:
        if isinstance(message, LogEpoch):
            paths = checkpoint.latest_first(mlruns / "checkpoints" / message.run_id)
            assert len(checkpoint.history(paths[0], checkpoint.load(paths[0]))) == message.epoch
        return None

    run(EXPERIMENT, local_group(), EXECUTION, MemoryRecorder(fails))


def test_what_is_no_run_of_its_own_keeps_numbers_alone(
    recorder: MemoryRecorder, mlruns: Path
) -> None:
    run(
        EXPERIMENT,
        local_group(),
        EXECUTION,
        recorder,
        CONFIRMATION,
        evaluate_each_epoch=False,
    )
    assert kinds(recorder) == [StartRun, LogEpoch, LogEpoch, EndRun]
    first, second = recorder.of(LogEpoch)
    assert "test/loss" not in first.metrics, "the test examples are looked at once"
    assert "test/loss" in second.metrics
    assert list(mlruns.iterdir()) == []


def test_a_run_that_diverges_ends_so_and_says_why(recorder: MemoryRecorder) -> None:
    result = run(SoftmaxRegression(dataset="digits", lr=1e38), local_group(), EXECUTION, recorder)
    assert (result.outcome, result.has_diverged) == ("diverged", True)
    (end,) = recorder.of(EndRun)
    assert end.tags["reason"] == "the loss is not finite"
    assert recorder.of(LogModel) == []


class Broken(SoftmaxRegression):
    def network(self) -> Any:
        raise ValueError("two layers\nmore than one line")


def test_an_error_of_the_experiment_is_recorded_with_its_place(recorder: MemoryRecorder) -> None:
    with pytest.raises(RunFailed) as caught:
        run(Broken(dataset="digits"), local_group(), EXECUTION, recorder)
    assert str(caught.value).startswith("broken failed: ValueError: two layers (test_launch.py, ")
    assert kinds(recorder) == [], "it never began"


class Leaving(Baseline):
    """Ends its process."""

    def network(self) -> nn.Module:
        raise SystemExit(3)


def test_an_experiment_that_ends_its_process_leaves_a_failed_run(recorder: MemoryRecorder) -> None:
    with pytest.raises(RunFailed, match="SystemExit: 3"):
        run(Leaving(dataset="digits"), local_group(), EXECUTION, recorder)
    assert kinds(recorder)[0] is StartRun
    (end,) = recorder.of(EndRun)
    assert end.outcome == "failed"
    assert "SystemExit: 3" in end.tags["reason"]


def test_an_error_in_the_middle_leaves_a_failed_run_with_its_trace(
    recorder: MemoryRecorder,
) -> None:
    failure = Ending("failed", reason="it broke", trace="line 1\n")
    group = ScriptedGroup(lambda _: [epoch(1), failure])
    with pytest.raises(
        RunFailed, match=r"it broke\nOnce that is fixed, go on: .* --resume 'run 1'"
    ):
        run(EXPERIMENT, group, EXECUTION, recorder)
    assert kinds(recorder) == [StartRun, LogEpoch, SaveArtifacts, EndRun]
    assert recorder.of(SaveArtifacts)[0].files == {"error.txt": b"line 1\n"}
    assert recorder.of(EndRun)[0].outcome == "failed"


def test_an_interruption_is_recorded_and_says_how_to_go_on(recorder: MemoryRecorder) -> None:
    group = ScriptedGroup(lambda _: [epoch(1), Interrupted(signal.SIGINT)])
    with pytest.raises(Interrupted) as caught:
        run(EXPERIMENT, group, EXECUTION, recorder)
    assert caught.value.__notes__ == [
        "Stopped after 1 epoch. Go on: python -m harness.run --resume 'run 1'"
    ]
    assert recorder.of(EndRun)[0].outcome == "interrupted"


def test_an_interrupted_confirmation_cannot_be_resumed_and_does_not_say_so(
    recorder: MemoryRecorder,
) -> None:
    group = ScriptedGroup(lambda _: [epoch(1), Interrupted(signal.SIGINT)])
    with pytest.raises(Interrupted) as caught:
        run(EXPERIMENT, group, EXECUTION, recorder, CONFIRMATION)
    assert not hasattr(caught.value, "__notes__")


def test_a_record_that_fails_ends_the_run(mlruns: Path) -> None:
    def fails(message: Message[Any]) -> Exception | None:
        full = isinstance(message, LogEpoch) and message.epoch == 2
        return RunFailed("the disk is full") if full else None

    recorder = MemoryRecorder(fails)
    with pytest.raises(RunFailed, match="the disk is full\nOnce that is fixed"):
        run(EXPERIMENT, ScriptedGroup(lambda _: [epoch(1), epoch(2)]), EXECUTION, recorder)
    assert recorder.of(EndRun)[0].tags["reason"] == "the disk is full"


def test_a_network_that_cannot_be_exported_costs_the_model_alone(
    recorder: MemoryRecorder,
) -> None:
    ending = Ending("completed", weights_sha256="ab", incomplete="no graph")
    group = ScriptedGroup(lambda _: [epoch(1), ending])
    with pytest.warns(UserWarning, match="no graph"):
        result = run(EXPERIMENT, group, EXECUTION, recorder)
    assert result.outcome == "completed"
    assert recorder.of(EndRun)[0].tags["incomplete"] == "no graph"


# Groups of seeds


def repeated(recorder: MemoryRecorder, group: Any, seeds: range = range(4, 7)) -> Any:
    prepared = DataSource(None).prepare(EXPERIMENT)
    begun = Begun(describe(EXECUTION.apply()), prepared.data_records())
    specification = RunSpecification(figures=False)
    return repeat(EXPERIMENT, seeds, group, EXECUTION, recorder, specification, begun)


def test_seeds_are_trained_one_after_the_other_below_their_group(recorder: MemoryRecorder) -> None:
    result = repeated(recorder, local_group())
    whole, *children = [message.record for message in recorder.of(StartRun)]
    assert (whole.kind, whole.parameters["seed"]) == ("group", "4..6")
    assert [child.parent for child in children] == ["run 1"] * 3
    assert [child.fields["seed"] for child in children] == [4, 5, 6]
    assert [end.run_id for end in recorder.of(EndRun)] == ["run 2", "run 3", "run 4", "run 1"]
    losses = [child.metrics["test/loss"] for child in result.results]
    assert result.summaries["test/loss"].mean == pytest.approx(sum(losses) / 3)
    assert recorder.of(EndRun)[-1].metrics["test/loss/n"] == 3


def test_a_seed_is_trained_as_it_is_alone(recorder: MemoryRecorder) -> None:
    result = repeated(recorder, local_group(), range(4, 6))
    alone = run(result.results[1].experiment, local_group(), EXECUTION, MemoryRecorder())
    assert alone.weights_sha256 == result.results[1].weights_sha256


def test_a_group_with_a_diverged_seed_has_diverged(recorder: MemoryRecorder) -> None:
    diverges: list[Any] = [epoch(1, loss=float("nan")), Ending("diverged")]
    result = repeated(recorder, ScriptedGroup(lambda e: diverges if e.seed == 5 else [epoch(1)]))
    outcomes = [end.outcome for end in recorder.of(EndRun)]
    assert outcomes == ["completed", "diverged", "completed", "diverged"]
    assert math.isnan(recorder.of(EndRun)[-1].metrics["test/loss"])
    assert "1 of 3 diverged. The loss is not finite" in summary(result)


def test_a_group_with_a_collapsed_seed_has_collapsed(recorder: MemoryRecorder) -> None:
    collapses: list[Any] = [epoch(1), Ending("collapsed")]
    result = repeated(recorder, ScriptedGroup(lambda e: collapses if e.seed == 5 else [epoch(1)]))
    outcomes = [end.outcome for end in recorder.of(EndRun)]
    assert outcomes == ["completed", "collapsed", "completed", "collapsed"]
    assert not result.has_diverged
    assert not result.has_learned
    assert "1 of 3 collapsed. Nothing was learned" in summary(result)


def test_a_run_whose_last_epochs_jump_says_so_in_one_line(recorder: MemoryRecorder) -> None:
    jumps = [epoch(n, accuracy) for n, accuracy in enumerate((0.9, 0.1) * 4, 1)]
    result = repeated(recorder, ScriptedGroup(lambda e: jumps if e.seed == 5 else [epoch(1)]))
    last = "1 of 3 jump: at most, the last epochs differ by 87.6 points (sd of the last 5 changes)"
    assert last in summary(result).splitlines()[-1]
    lines = summary(result.results[1]).splitlines()
    assert lines[-1].startswith("the last epochs differ by 87.6 points")
    assert "Note: the last epochs differ by" in recorder.of(EndRun)[1].description
    assert "the last epochs" not in summary(result.results[0])


def test_a_seed_that_fails_ends_its_group(recorder: MemoryRecorder) -> None:
    failure = Ending("failed", reason="it broke")
    group = ScriptedGroup(lambda e: [epoch(1), failure] if e.seed == 5 else [epoch(1)])
    with pytest.raises(RunFailed, match="it broke"):
        repeated(recorder, group)
    assert [end.outcome for end in recorder.of(EndRun)] == ["completed", "failed", "failed"]
    assert len(recorder.of(StartRun)) == 3, "the third seed is not begun"


def test_a_seed_that_is_interrupted_interrupts_its_group(recorder: MemoryRecorder) -> None:
    group = ScriptedGroup(lambda _: [epoch(1), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        repeated(recorder, group)
    assert [end.outcome for end in recorder.of(EndRun)] == ["interrupted", "interrupted"]
    assert MACHINE["device"] == "cpu"
