"""A past run, repeated from its record and compared number by number."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.base import provenance
from harness.base.errors import BadRequest
from harness.runs import runner
from harness.runs.runner import Prepared, RunResult, Watcher
from harness.tracking.schema import Recorder, StoredRun
from harness.training.device import Execution, choose, describe
from harness.training.experiment import Experiment, load_experiment

History = Mapping[int, Mapping[str, float]]
"""The metrics of each epoch."""

NUMERICS = (
    "device",
    "device_name",
    "threads",
    "torch",
    "cuda",
    "matmul_precision",
    "capture_graph",
)
"""What decides the bits, beside the experiment, its source and its data."""

UNREPEATABLE = ("time/", "memory/")
"""Metrics that are measured, not computed, and so differ each time."""


@dataclass(frozen=True)
class Difference:
    """One metric of one epoch that came out otherwise."""

    epoch: int
    metric: str
    recorded: float
    repeated: float

    @property
    def size(self) -> float:
        """The distance, in parts of the recorded value where that is above 1; inf for a nan."""
        distance = abs(self.recorded - self.repeated) / max(1.0, abs(self.recorded))
        return math.inf if math.isnan(distance) else distance


@dataclass(frozen=True)
class Verdict:
    """Whether the record holds, in one sentence.

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
        compared: how many numbers were compared.
        differences: the ones that came out otherwise, by epoch.
        weights: whether the final weights are equal to the bit; None where their digest was not
            recorded, or the recorded run did not come to its end.
        changes: what has changed since the run was recorded: name, then, now.
    """

    stored: StoredRun
    result: RunResult
    compared: int
    differences: list[Difference]
    weights: bool | None
    changes: dict[str, tuple[str, str]]

    @property
    def is_comparable(self) -> bool:
        """Whether equal bits are to be expected: the same numerics compute both."""
        return not self.changes.keys() & set(NUMERICS)

    def verdict(self, tolerance: float, exact: bool) -> Verdict:
        """Judge: equal bits where they can be expected (or with `exact`), else the tolerance."""
        if not self.differences and self.weights is not False:
            weights = ", final weights included" if self.weights else ""
            return Verdict("identical", f"all {self.compared} numbers to the bit{weights}")
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

    def _judged(self, what: str, largest: float, tolerance: float, exact: bool) -> Verdict:
        if exact or self.is_comparable:
            return Verdict("different", what)
        if largest <= tolerance:
            return Verdict("within tolerance", f"{what} (tolerance {tolerance:g})")
        return Verdict("different", f"{what} (tolerance {tolerance:g})")

    def lines(self, verdict: Verdict) -> list[str]:
        """The verdict and what has changed, for the screen."""
        epochs = self.stored.num_epochs
        lines = [
            f"{verdict.word}: {verdict.sentence} ({epochs} epochs, n = 1 run, {self.result.device})"
        ]
        for name, (then, now) in self.changes.items():
            lines.append(f"  {name} was {then}, is {now}")
        if not self.changes:
            lines.append("  commit, files, data, device, threads, versions and precision are equal")
        return [*lines, f"run {self.result.run_id}", f"verifies {self.stored.run_id}"]

    def report(self, recorder: Recorder, verdict: Verdict) -> None:
        """Keep the comparison with the repeated run, which links to the original."""
        table = [dataclasses.asdict(difference) for difference in self.differences]
        summary: dict[str, Any] = {
            "verifies": self.stored.run_id,
            "verdict": verdict.word,
            "sentence": verdict.sentence,
            "compared": self.compared,
            "weights_equal": self.weights,
            "changes": {name: {"then": t, "now": n} for name, (t, n) in self.changes.items()},
            "differences": table,
        }
        recorder.artifacts(
            self.result.run_id,
            {"verification.json": (json.dumps(summary, indent=2) + "\n").encode()},
        )
        recorder.finish(
            self.result.run_id,
            self.result.outcome,
            epoch=len(self.result.epochs),
            metrics={"verify/differences": float(len(self.differences))},
            tags={"verdict": verdict.word},
            description="\n".join(f"{line}  " for line in self.lines(verdict)),
        )


def verify(
    stored: StoredRun,
    history: History,
    recorder: Recorder,
    watcher: Watcher,
    *,
    device: str | None = None,
    threads: int | None = None,
    data_root: Path | None = None,
) -> Verification:
    """Train a recorded run anew, as a run of kind `verify`, and compare.

    Args:
        history: the recorded metrics by epoch.
        device: None for the recorded one, or the best of this machine where it is missing.
        threads: None for as many as recorded.

    Raises:
        BadRequest: the run cannot be repeated, or this machine cannot do what is asked.
        RunFailed, Interrupted: as `harness.runs.runner.run` does.
    """
    _refuse_what_cannot_be_repeated(stored)
    experiment = _experiment(stored)
    execution = _execution(stored, device, threads)
    used = execution.apply()
    prepared = runner.prepare(experiment, data_root, with_test=not experiment.validation_size)
    labels = runner.Labels(
        kind="verify",
        name=f"verify {experiment}",
        links={"verifies": stored.run_id},
        settings=dataclasses.asdict(execution),
        figures=False,
    )
    result = runner.run(
        prepared,
        execution,
        used,
        recorder,
        watcher,
        labels,
        # A confirmation looks at the test images once.
        evaluate_each_epoch=stored.kind != "confirm",
    )
    return compare(stored, history, result, _changes(stored, prepared, execution, used))


def compare(
    stored: StoredRun,
    history: History,
    result: RunResult,
    changes: dict[str, tuple[str, str]],
) -> Verification:
    """Hold a run against the record of another, number by number."""
    repeated = {epoch.epoch: epoch.metrics for epoch in result.epochs}
    compared, differences = 0, []
    for epoch, metrics in sorted(history.items()):
        for name, value in sorted(metrics.items()):
            if name.startswith(UNREPEATABLE) or name not in repeated.get(epoch, {name: 0}):
                continue
            compared += 1
            now = repeated.get(epoch, {}).get(name, math.nan)
            if value != now and not (math.isnan(value) and math.isnan(now)):
                differences.append(Difference(epoch, name, value, now))
    then = stored.tag("weights_sha256")
    whole = stored.num_epochs == len(result.epochs)
    weights = then == result.weights_sha256 if then and whole else None
    return Verification(stored, result, compared, differences, weights, changes)


def _refuse_what_cannot_be_repeated(stored: StoredRun) -> None:
    if not stored.is_ours:
        raise BadRequest(f"verify: {stored.run_id} is not one of the harness's runs.")
    if stored.kind in ("group", "study"):
        raise BadRequest(
            f"verify: {stored.run_id} is a {stored.kind}; verify one of the runs below it."
        )
    if stored.outcome == "running":
        raise BadRequest(f"verify: {stored.run_id} is still running.")
    if not stored.num_epochs:
        raise BadRequest(f"verify: {stored.run_id} has no epoch that could be compared.")


def _experiment(stored: StoredRun) -> Experiment:
    experiment_class = load_experiment(stored.experiment)
    try:
        return experiment_class(**stored.fields)
    except TypeError:
        known = {field.name for field in dataclasses.fields(experiment_class)}
        gone = ", ".join(sorted(stored.fields.keys() - known))
        raise BadRequest(
            f"verify: {stored.experiment} has no field {gone} any more; "
            f"check out the commit of the run: {stored.tag('git_commit') or 'none'}"
        ) from None


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


def _changes(
    stored: StoredRun, prepared: Prepared, execution: Execution, device: torch.device
) -> dict[str, tuple[str, str]]:
    """What is not as it was: by name, then and now."""
    here = describe(device)
    source = provenance.source()
    now = {
        **{name: here[name] for name in ("device", "device_name", "threads", "torch", "cuda")},
        "git_commit": source.commit or "none",
        "git_dirty": str(bool(source.changes)).lower(),
        "experiment_sha256": prepared.experiment.source_digest(),
        **{f"data.{part.context}_sha256": part.digest for part in prepared.data_records()},
    }
    changes = {
        name: (stored.tag(name) or "not recorded", value)
        for name, value in now.items()
        if stored.tag(name) != value
    }
    commit = stored.tag("git_commit") or ""
    if files := provenance.files_changed_since(commit):
        changes["files"] = (f"as in {commit[:8]}", f"changed: {', '.join(files)}")
    return changes
