"""One trial: trained epoch by epoch, reported to the pruner, told its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import optuna
import torch
from optuna.trial import Trial

from harness.interruption import Interrupted, deferred
from harness.search.claim import give_back, tell
from harness.training.loop import EpochResult, Training

OBJECTIVE = "validation/accuracy"
"""What a study maximises, at the last epoch."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        value: validation accuracy at its last epoch; None where there was none.
        reason: what went wrong, if anything did.
    """

    outcome: Literal["completed", "pruned", "diverged", "failed"]
    value: float | None
    num_epochs: int
    reason: str = ""


def run_trial(
    stored: optuna.Study,
    trial: Trial,
    build: Callable[[], Training],
    on_epoch: Callable[[EpochResult], None],
) -> TrialResult:
    """Train what `build` returns, and tell the study how it ended.

    `on_epoch` hears of each epoch before the next one is trained.

    Raises:
        Interrupted: the trial is queued again.
    """
    result = TrialResult("failed", None, 0, "it was not begun")
    try:
        result = _train(trial, build, on_epoch)
        with deferred():
            tell(
                stored,
                trial,
                result.outcome,
                result.value,
                num_epochs=result.num_epochs,
                **({"reason": result.reason} if result.reason else {}),
            )
    except (Interrupted, KeyboardInterrupt):
        with deferred():
            if not stored.trials[trial.number].state.is_finished():
                give_back(stored, trial, retries=trial.user_attrs.get("retries", 0))
        raise
    return result


def _train(
    trial: Trial, build: Callable[[], Training], on_epoch: Callable[[EpochResult], None]
) -> TrialResult:
    value, epoch = None, 0
    try:
        training = build()
        for result in training.epochs():
            value, epoch = result.metrics[OBJECTIVE], result.epoch
            on_epoch(result)
            if result.diverged:
                return TrialResult("diverged", value, epoch, "the loss is not finite")
            trial.report(value, epoch)
            if epoch < training.experiment.num_epochs and trial.should_prune():
                return TrialResult("pruned", value, epoch)
    except torch.OutOfMemoryError:
        return TrialResult("failed", value, epoch, "out of memory")
    except Exception as error:
        return TrialResult("failed", value, epoch, f"{type(error).__name__}: {error}")
    return TrialResult("completed", value, epoch)
