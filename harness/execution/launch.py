"""Runs an experiment once, or once for each of several seeds as one group."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.base import project
from harness.base.errors import BadRequest, RunFailed
from harness.base.formatting import duration, html_facts, metric_text, number_of
from harness.base.goals import usual_goal
from harness.base.metric_names import judge, quantities
from harness.base.signals import Interrupted
from harness.base.statistics import Summary, summarize
from harness.execution.callbacks import RecordRun, SaveCheckpoints, StopEarly
from harness.execution.descriptions import describe_group, describe_run
from harness.execution.driver import Callback, Driven, InTurn, drive
from harness.execution.events import Begun
from harness.execution.failures import OUT_OF_MEMORY, REASONS, explained
from harness.execution.specification import RunSpecification
from harness.execution.steadiness import jump
from harness.execution.trained_network import Weights
from harness.execution.training_group import Keepsake, TrainingGroup, TrainingTask
from harness.tracking.messages import EndRun, Recorder, StartRun
from harness.tracking.schema import DataRecord, Outcome
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import EpochResult

NO_WEIGHTS: Weights = {}


@dataclass(frozen=True, repr=False)
class RunResult:
    """How a run ended.

    Attributes:
        epochs: the results of all epochs, in order.
        seconds: wall time of the training, its record, its figures and its model; of a resumed
            run, since it was resumed.
        data: the sets of examples that it saw.
        weights_sha256: digest of the final weights; see `Training.weights_digest`.
    """

    experiment: Experiment
    run_id: str
    outcome: Outcome
    epochs: tuple[EpochResult, ...]
    seconds: float
    device: str
    data: tuple[DataRecord, ...] = ()
    weights_sha256: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last epoch; empty if there was none."""
        return self.epochs[-1].metrics if self.epochs else {}

    @property
    def has_diverged(self) -> bool:
        """Whether the loss was not finite."""
        return self.outcome == "diverged"

    @property
    def has_learned(self) -> bool:
        """Whether it has neither diverged nor collapsed."""
        return self.outcome not in REASONS

    @property
    def jump(self) -> float | None:
        """How far the last epochs of a completed run jump, if that is much; see `steadiness`."""
        if self.outcome != "completed":
            return None
        return jump(self.experiment, self.epochs, self.data)

    def __repr__(self) -> str:
        return f"<run {self.run_id[:8]}: {self.experiment}, {', '.join(self._words().values())}>"

    def _repr_html_(self) -> str:
        return html_facts(
            f"run {self.run_id[:8]}", {"experiment": str(self.experiment)} | self._words()
        )

    def _words(self) -> dict[str, str]:
        part = judge(self.metrics)
        values = (
            f"{name} {metric_text(self.metrics[f'{part}/{name}'])}"
            for name in quantities(self.metrics)
        )
        return {
            "outcome": f"{self.outcome} after {number_of(len(self.epochs), 'epoch')}",
            **({part: f"{', '.join(values)} (n = 1 seed)"} if part else {}),
            "device": f"{self.device}, {duration(self.seconds)}",
        }


@dataclass(frozen=True, repr=False)
class GroupResult:
    """How a group of seeds ended.

    Attributes:
        results: one for each seed.
        summaries: of each final metric over the seeds, by its name.
    """

    run_id: str
    results: tuple[RunResult, ...]
    summaries: dict[str, Summary]

    @property
    def has_diverged(self) -> bool:
        """Whether one of the trainings has."""
        return any(result.has_diverged for result in self.results)

    @property
    def has_learned(self) -> bool:
        """Whether none of the trainings has diverged or collapsed."""
        return all(result.has_learned for result in self.results)

    @property
    def outcome(self) -> Outcome:
        """`diverged` or else `collapsed` if one of the trainings has; otherwise `completed`."""
        if self.has_diverged:
            return "diverged"
        return "completed" if self.has_learned else "collapsed"

    def __repr__(self) -> str:
        return f"<group {self.run_id[:8]}: {number_of(len(self.results), 'seed')}>"

    def _repr_html_(self) -> str:
        return html_facts(f"group {self.run_id[:8]}", self.summaries)


def run(
    experiment: Experiment,
    group: TrainingGroup,
    execution: Execution,
    recorder: Recorder,
    specification: RunSpecification | None = None,
    view: Callback | None = None,
    *,
    evaluate_each_epoch: bool = True,
    weights: Weights = NO_WEIGHTS,
) -> RunResult:
    """Train one experiment and record it, epoch by epoch.

    Each epoch is saved, then recorded, before the next one is trained. Only a run of kind `run` is
    saved, and leaves a model and figures. Without `evaluate_each_epoch` the evaluation examples are
    looked at once, after the last epoch. `weights` replace initial ones of the network.

    Raises:
        RunFailed: the training or its record went wrong; the run is recorded as failed.
        Interrupted: the run is recorded as interrupted.
    """
    specification = specification or RunSpecification()
    record = RecordRun(recorder, specification, experiment, execution, describe=describe_run)
    driven = driven_run(
        record, group, view, evaluate_each_epoch=evaluate_each_epoch, weights=weights
    )
    return drive_run(record, driven, group)


def driven_run(
    record: RecordRun,
    group: TrainingGroup,
    view: Callback | None,
    *,
    evaluate_each_epoch: bool = True,
    weights: Weights = NO_WEIGHTS,
    state: bytes | None = None,
    history: tuple[EpochResult, ...] = (),
) -> Driven:
    """A run as the driver takes it: what it keeps follows from its kind."""
    specification = record.specification
    keep: frozenset[Keepsake] = frozenset()
    callbacks: list[Callback] = [record]
    if specification.kind == "run":
        keep = frozenset({"model", "examples"})
        if specification.figures:
            keep |= {"figures"}
        # Trials, confirmations and verifications are repeated, not resumed.
        callbacks.insert(0, SaveCheckpoints(group, record, project.mlruns() / "checkpoints"))
    goal = usual_goal(record.experiment.directions())
    if record.experiment.patience:
        callbacks.append(StopEarly(record, goal))
    if view:
        callbacks.append(view)
    task = TrainingTask(
        record.experiment,
        evaluate_each_epoch=evaluate_each_epoch,
        keep=keep,
        keep_best=goal if specification.keep_best else None,
        log_average=specification.log_average,
        weights=weights,
        state=state,
        history=history,
    )
    return Driven(task, callbacks)


def drive_run(record: RecordRun, driven: Driven, group: TrainingGroup) -> RunResult:
    """Drive one run to its end; see `run`."""
    specification = record.specification
    try:
        drive(group, InTurn([driven]))
    except (Interrupted, KeyboardInterrupt) as interruption:
        if specification.is_resumable and record.run_id and record.outcome == "interrupted":
            interruption.add_note(
                f"Stopped after {number_of(len(record.history), 'epoch')}. "
                f"Go on: {specification.resume_command(record.run_id, record.experiment)}"
            )
        raise
    except BadRequest:
        raise
    except Exception as error:
        reason = str(explained(error, record.experiment))
        raise _failed(record, reason) from error
    if record.outcome == "failed":
        assert record.ending
        raise _failed(record, record.ending.reason)
    return result_of(record)


def result_of(record: RecordRun) -> RunResult:
    """The result of a run that has ended."""
    assert record.ending
    assert record.begun_event
    return RunResult(
        record.experiment,
        record.run_id,
        record.ending.outcome,
        tuple(record.history),
        record.seconds,
        record.begun_event.machine["device"],
        record.begun_event.data,
        record.ending.weights_sha256,
    )


def repeat(
    experiment: Experiment,
    seeds: Sequence[int],
    group: TrainingGroup,
    execution: Execution,
    recorder: Recorder,
    specification: RunSpecification,
    begun: Begun,
    view: Callback | None = None,
    *,
    weights: Weights = NO_WEIGHTS,
) -> GroupResult:
    """Run an experiment once for each seed, as children of one group run.

    Args:
        begun: the machine and the data, for the record of the group.

    Raises:
        RunFailed, Interrupted: as `run` does; the group is recorded so, too.
    """
    unseeded = dataclasses.replace(experiment, seed=type(experiment).seed)
    shared = specification.name or unseeded.label()
    whole = dataclasses.replace(specification, kind="group", name=f"{shared} x{len(seeds)}")
    record = whole.record(experiment, execution, begun)
    seed_range = f"{seeds[0]}..{seeds[-1]}"
    group_id = recorder.send(
        StartRun(dataclasses.replace(record, parameters=record.parameters | {"seed": seed_range}))
    )
    runs: list[RecordRun] = []

    def children() -> Iterator[Driven]:
        for seed in seeds:
            if runs and runs[-1].outcome == "failed":
                return
            child = dataclasses.replace(
                specification, name=f"{shared} seed={seed}", parent=group_id
            )
            seeded = dataclasses.replace(experiment, seed=seed)
            runs.append(RecordRun(recorder, child, seeded, execution, describe=describe_run))
            yield driven_run(runs[-1], group, view, weights=weights)

    try:
        drive(group, InTurn(children()))
        if runs[-1].outcome == "failed":
            assert runs[-1].ending
            raise RunFailed(runs[-1].ending.reason)
    except BaseException as error:
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        recorder.send(EndRun(group_id, "interrupted" if interrupted else "failed"))
        raise
    results = tuple(map(result_of, runs))
    summaries = {
        name: summarize([result.metrics[name] for result in results]) for name in results[0].metrics
    }
    found = GroupResult(group_id, results, summaries)
    recorder.send(
        EndRun(
            group_id,
            found.outcome,
            epoch=experiment.num_epochs,
            metrics={
                key: value
                for name, summary in summaries.items()
                for key, value in (summary.metrics(name) | {name: summary.mean}).items()
            },
            description=describe_group(
                unseeded, seeds, begun.machine["device"], summaries, specification.command
            ),
        )
    )
    return found


def _failed(record: RecordRun, reason: str) -> RunFailed:
    # With the same batch size there would not be more memory.
    if not (record.specification.is_resumable and record.history) or reason.startswith(
        OUT_OF_MEMORY
    ):
        return RunFailed(reason)
    command = record.specification.resume_command(record.run_id, record.experiment)
    return RunFailed(f"{reason}\nOnce that is fixed, go on: {command}")
