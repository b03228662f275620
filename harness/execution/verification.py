"""A past run, repeated from its record and compared number by number."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import BadRequest
from harness.base.formatting import harmless, number_of
from harness.execution.changes import NUMERICS, Change, changes_since
from harness.execution.driver import Callback
from harness.execution.launch import RunResult, run
from harness.execution.preparation import DataSource
from harness.execution.recorded_code import recorded_experiment
from harness.execution.specification import RunSpecification
from harness.execution.trained_network import starting_weights
from harness.execution.training_group import LocalGroup, TrainingGroup
from harness.tracking.messages import EndRun, Recorder, SaveArtifacts
from harness.tracking.reader import Reader
from harness.tracking.schema import StoredRun
from harness.training.device import Execution, choose, describe

COMPUTED = ("train/", "test/", "validation/")
"""Metrics that a training computes; others are measured, and differ each time."""

NOT_RECORDED = "The repetition is not recorded: the store may only be read."


@dataclass(frozen=True)
class Deviation:
    """A metric of an epoch whose repeated value is not the recorded one."""

    epoch: int
    metric: str
    recorded: float
    repeated: float

    @property
    def size(self) -> float:
        """The distance, relative to the recorded value if that is above 1; inf for a NaN."""
        distance = abs(self.recorded - self.repeated) / max(1.0, abs(self.recorded))
        return math.inf if math.isnan(distance) else distance


@dataclass(frozen=True)
class Confirmed:
    """Whether the repeated run confirms the record, in one sentence.

    Attributes:
        word: `identical`, `within tolerance` or `different`.
    """

    word: str
    sentence: str

    @property
    def holds(self) -> bool:
        """Whether the repeated run confirms the record."""
        return self.word != "different"


@dataclass(frozen=True)
class Verification:
    """A recorded run and its repetition.

    Attributes:
        num_epochs: how many epochs are recorded.
        compared: how many numbers were compared.
        differences: the numbers that deviate, by epoch.
        weights: whether the final weights are equal to the bit; None if their digest was not
            recorded, or the recorded run did not finish.
        changes: what has changed since the run was recorded: name, then, now.
    """

    stored: StoredRun
    result: RunResult
    num_epochs: int
    compared: int
    differences: list[Deviation]
    weights: bool | None
    changes: dict[str, Change]

    @property
    def is_comparable(self) -> bool:
        """Whether equal bits are to be expected: the same numerics compute both."""
        return not self.changes.keys() & set(NUMERICS)

    def verdict(self, tolerance: float, exact: bool) -> Confirmed:
        """Judge: equal bits where they can be expected (or with `exact`), else the tolerance."""
        if not self.differences and self.weights is not False:
            weights = ", final weights included" if self.weights else ""
            return Confirmed("identical", f"all {self.compared} numbers to the bit{weights}")
        if not self.differences:
            return self._judged("only the final weights differ", 0.0, tolerance, exact)
        first = self.differences[0]
        largest = max(difference.size for difference in self.differences)
        return self._judged(
            f"from epoch {first.epoch} on: {first.metric} was {first.recorded!r}, is "
            f"{first.repeated!r}; {len(self.differences)} of {self.compared} numbers differ, by "
            f"{largest:.2g} at most",
            largest,
            tolerance,
            exact,
        )

    def _judged(self, what: str, largest: float, tolerance: float, exact: bool) -> Confirmed:
        if exact or self.is_comparable:
            return Confirmed("different", what)
        if largest <= tolerance:
            return Confirmed("within tolerance", f"{what} (tolerance {tolerance:g})")
        return Confirmed("different", f"{what} (tolerance {tolerance:g})")

    def lines(self, verdict: Confirmed) -> list[str]:
        """The verdict and what has changed, for the screen."""
        lines = [
            f"{verdict.word}: {verdict.sentence} "
            f"({number_of(self.num_epochs, 'epoch')}, n = 1 run, {self.result.device})"
        ]
        for name, change in self.changes.items():
            lines.append("  " + harmless(f"{name} was {change.then}, is {change.now}"))
        if not self.changes:
            lines.append("  commit, files, data, device, threads, versions and precision are equal")
        repeated = f"run {self.result.run_id}" if self.result.run_id else NOT_RECORDED
        return [*lines, repeated, f"verifies {self.stored.run_id}"]

    def report(self, recorder: Recorder, verdict: Confirmed) -> None:
        """Keep the comparison with the repeated run, which links to the original."""
        table = [dataclasses.asdict(difference) for difference in self.differences]
        summary: dict[str, Any] = {
            "verifies": self.stored.run_id,
            "verdict": verdict.word,
            "sentence": verdict.sentence,
            "compared": self.compared,
            "weights_equal": self.weights,
            "changes": {name: vars(change) for name, change in self.changes.items()},
            "differences": table,
        }
        content = (json.dumps(summary, indent=2) + "\n").encode()
        recorder.send(SaveArtifacts(self.result.run_id, {"verification.json": content}))
        recorder.send(
            EndRun(
                self.result.run_id,
                self.result.outcome,
                epoch=len(self.result.epochs),
                metrics={"verify/differences": float(len(self.differences))},
                tags={"verdict": verdict.word},
                description="\n".join(f"{line}  " for line in self.lines(verdict)),
            )
        )


def verify(
    stored: StoredRun,
    reader: Reader,
    recorder: Recorder,
    view: Callable[[TrainingGroup], Callback],
    *,
    device: str | None = None,
    threads: int | None = None,
    root: Path | None = None,
    run_recorded_code: bool = False,
) -> Verification:
    """Train a recorded run again, as a run of kind `verify`, and compare.

    Args:
        view: shows the training of a group.
        device: by default the recorded one, or the best of this machine if it has no such device.
        threads: by default as many as recorded.
        run_recorded_code: see `recorded_experiment`.

    Raises:
        BadRequest: the run cannot be repeated, or this machine cannot do what is asked.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    recorded = [
        (epoch, metric, value)
        for _, epoch, metric, value in reader.history([stored.run_id])
        if metric.startswith(COMPUTED)
    ]
    _refuse_what_cannot_be_repeated(stored, recorded)
    experiment = recorded_experiment(stored, reader, "verify", run_recorded_code=run_recorded_code)
    execution = _execution(stored, device, threads)
    used = execution.apply()
    data = DataSource(root)
    prepared = data.prepare(experiment, with_test=not experiment.validation_size)
    group = LocalGroup(data, execution, used)
    result = run(
        experiment,
        group,
        execution,
        recorder,
        RunSpecification(
            kind="verify",
            name=f"verify {experiment}",
            tags={"verifies": stored.run_id},
            start_from=stored.settings.get("start_from"),
            settings=dataclasses.asdict(execution),
            figures=False,
        ),
        view(group),
        # A confirmation looks at the test examples once.
        evaluate_each_epoch=stored.kind != "confirm",
        weights=starting_weights(stored, experiment, reader),
    )
    changes = changes_since(stored, reader, prepared, execution, describe(used))
    return compare_with_record(stored, recorded, result, changes)


def compare_with_record(
    stored: StoredRun,
    recorded: Sequence[tuple[int, str, float]],
    result: RunResult,
    changes: dict[str, Change],
) -> Verification:
    """Compare a run with the recorded numbers of another one.

    Args:
        recorded: epoch, metric, value.
    """
    repeated = {epoch.epoch: epoch.metrics for epoch in result.epochs}
    compared, differences = 0, []
    for epoch, metric, value in sorted(recorded, key=lambda point: point[:2]):
        metrics = repeated.get(epoch, {})
        if metrics and metric not in metrics:
            continue
        compared += 1
        now = metrics.get(metric, math.nan)
        if value != now and not (math.isnan(value) and math.isnan(now)):
            differences.append(Deviation(epoch, metric, value, now))
    then = stored.tag("weights_sha256")
    epochs = {epoch for epoch, _, _ in recorded}
    whole = len(epochs) == len(result.epochs)
    weights = then == result.weights_sha256 if then and whole else None
    return Verification(stored, result, len(epochs), compared, differences, weights, changes)


def _refuse_what_cannot_be_repeated(stored: StoredRun, recorded: Sequence[object]) -> None:
    if stored.kind in ("group", "study"):
        raise BadRequest(
            f"verify: {stored.run_id} is a {stored.kind}; verify one of the runs below it."
        )
    if stored.outcome == "running":
        raise BadRequest(f"verify: {stored.run_id} is still running.")
    if not recorded:
        raise BadRequest(f"verify: {stored.run_id} has no epoch that could be compared.")


def _execution(stored: StoredRun, device: str | None, threads: int | None) -> Execution:
    if device is None:
        try:
            device = str(choose(stored.tag("device") or "auto"))
        except BadRequest:
            device = "auto"
    return Execution(
        device=device,
        threads=int(stored.tag("threads") or 0) if threads is None else threads,
        matmul_precision=stored.settings.get("matmul_precision", "highest"),
        capture_graph=stored.settings.get("capture_graph", False),
    )
