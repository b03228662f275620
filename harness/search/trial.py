"""One trial: trained epoch by epoch, reported to the pruner, told its outcome."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from harness.base.errors import RunFailed
from harness.base.signals import deferred
from harness.search.trial_queue import tell
from harness.training.loop import EpochResult, Training

OBJECTIVE = "validation/accuracy"
"""What a study maximises, at the last epoch."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        outcome: `interrupted` where someone else has given the trial back meanwhile.
        value: validation accuracy at its last epoch; None where there was none.
        training_seconds: in which epochs were trained and evaluated.
        reason: what went wrong, if anything did.
    """

    outcome: Literal["completed", "pruned", "diverged", "failed", "interrupted"]
    value: float | None = None
    num_epochs: int = 0
    training_seconds: float = 0.0
    reason: str = ""


def run_trial(
    stored: optuna.Study,
    trial: Trial,
    build: Callable[[], Training],
    on_epoch: Callable[[EpochResult], None],
    on_end: Callable[[], None] = lambda: None,
) -> TrialResult:
    """Train what `build` returns, and tell the study how it ended.

    `on_epoch` hears of each epoch before the next one is trained, `on_end` of their end before the
    study does. What goes wrong in the training is the trial's failure; what goes wrong in those two
    or in the storage is not, and is raised.
    """
    try:
        result = _train(trial, build, on_epoch)
        on_end()
        with deferred():
            attributes: dict[str, Any] = {"training_seconds": result.training_seconds}
            if result.reason:
                attributes["reason"] = result.reason
            tell(stored, trial, result.outcome, result.value, attributes)
    except UpdateFinishedTrialError:
        return TrialResult("interrupted", reason="the trial was given back by someone else")
    return result


class _Failed(Exception):
    """A training went wrong; the message says how."""


def _train(
    trial: Trial, build: Callable[[], Training], on_epoch: Callable[[EpochResult], None]
) -> TrialResult:
    result = TrialResult("completed")
    try:
        for epoch, is_last in _epochs(build):
            result = TrialResult(
                "completed",
                epoch.metrics[OBJECTIVE],
                epoch.epoch,
                result.training_seconds
                + epoch.metrics["time/train_seconds"]
                + epoch.metrics["time/evaluate_seconds"],
            )
            on_epoch(epoch)
            trial.report(epoch.metrics[OBJECTIVE], epoch.epoch)
            if epoch.diverged:
                reason = "the loss is not finite"
                return dataclasses.replace(result, outcome="diverged", reason=reason)
            if not is_last and trial.should_prune():
                return dataclasses.replace(result, outcome="pruned")
    except _Failed as failure:
        return dataclasses.replace(result, outcome="failed", reason=str(failure))
    return result


def _epochs(build: Callable[[], Training]) -> Iterator[tuple[EpochResult, bool]]:
    """The epochs of a training, each with whether it is the last one."""
    try:
        training = build()
        for result in training.epochs():
            yield result, result.epoch == training.experiment.num_epochs
    except torch.OutOfMemoryError:
        raise _Failed("out of memory") from None
    except RunFailed as failure:  # says already what and where
        raise _Failed(str(failure)) from failure
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise _Failed(f"{type(error).__name__}: {error} ({where})") from error
