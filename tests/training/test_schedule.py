"""Learning rate schedules: their shape, and the updates that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from experiments.baseline import Baseline
from harness.base.errors import BadRequest
from harness.training.builtin_datasets import open_dataset
from harness.training.device import Execution
from harness.training.loop import Training
from harness.training.schedule import Schedule, ScheduleName

NAMES: list[ScheduleName] = ["constant", "linear", "cosine"]


@given(
    st.sampled_from(NAMES),
    st.integers(1, 400),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_schedule_rises_then_stays_or_falls(
    name: ScheduleName, num_updates: int, warm: float, final: float
) -> None:
    schedule = Schedule(name, num_updates, warm * num_updates, final)
    factors = [schedule(update) for update in range(num_updates)]
    assert all(0 <= factor <= 1 for factor in factors)
    rising = [f for update, f in enumerate(factors) if update < schedule.warmup]
    assert rising == sorted(rising)
    falling = factors[len(rising) :]
    assert falling == sorted(falling, reverse=True)
    assert not rising or rising[0] > 0
    if name == "constant":
        assert set(falling) <= {1.0}
    elif falling:
        assert schedule(num_updates) == pytest.approx(final)
        assert falling[0] <= 1


def test_known_values() -> None:
    linear = Schedule("linear", 10, 2, 0.5)
    assert [linear(update) for update in (0, 1, 2, 6, 10)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.75, 0.5]
    )
    cosine = Schedule("cosine", 8, 0, 0.1)
    assert [cosine(update) for update in (0, 4, 8)] == pytest.approx([1, 0.55, 0.1])


class Rates(Baseline):
    """Notes the learning rate of every update."""

    def update(self, network: nn.Module, loss_fn: nn.Module, optimizer: Any, *batch: Any) -> Any:
        NOTED.append(optimizer.param_groups[0]["lr"])
        return super().update(network, loss_fn, optimizer, *batch)


NOTED: list[float] = []


def test_every_update_has_its_own_learning_rate() -> None:
    NOTED.clear()
    experiment = Rates(
        lr=0.5, num_epochs=3, batch_size=300, schedule="linear", warmup_epochs=1, dataset="digits"
    )
    data = open_dataset("digits", Path())
    training = Training(
        experiment, data.train, data.test, "test", Execution(threads=1), torch.device("cpu")
    )
    list(training.epochs())
    expected = Schedule("linear", 15, 5, 0.0)
    assert pytest.approx([0.5 * expected(update) for update in range(15)]) == NOTED
    assert [result.metrics["lr"] for result in training.history] == NOTED[::5]


class Own(Baseline):
    def scheduler(self, optimizer: Any, num_updates: int) -> Any:
        return torch.optim.lr_scheduler.ConstantLR(optimizer)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Own, {"schedule": "cosine"}, "schedule: .* has a scheduler"),
        (Own, {"warmup_epochs": 1}, "warmup_epochs: .* has a scheduler"),
        (Baseline, {"warmup_epochs": 11}, "warmup_epochs: 11.0 is not allowed, .* num_epochs 10"),
        (Baseline, {"schedule": "cosin"}, "schedule: 'cosin' is not allowed. Did you mean cosine"),
        (Baseline, {"final_lr_fraction": 1.5}, "final_lr_fraction: 1.5 .* at most 1"),
        (Baseline, {"patience": -1}, "patience: -1 .* at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: type[Baseline], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        kind(**fields)
    assert kind().has_own_scheduler == (kind is Own)
