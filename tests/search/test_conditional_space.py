"""A conditional space in words: ranges and conditions, found by drawing from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, Trial

from experiments.baseline import Baseline
from harness.search.study import Study, describe_space

Asked = Trial | FrozenTrial


def by_choice(trial: Asked) -> dict[str, Any]:
    if trial.suggest_categorical("wide", [True, False]):
        return {"hidden_width": trial.suggest_int("hidden_width", 300, 400)}
    return {}


def nested(trial: Asked) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["plain", "a", "b"])
    if kind != "plain" and trial.suggest_categorical("slow", [True, False]):
        return {"lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True)}
    return {}


def both(trial: Asked) -> dict[str, Any]:
    one = trial.suggest_categorical("one", [1, 2])
    two = trial.suggest_categorical("two", ["x", "y"])
    return {"lr": trial.suggest_float("small", 0.0, 1.0)} if (one, two) == (2, "y") else {}


def by_count(trial: Asked) -> dict[str, Any]:
    depth = trial.suggest_int("depth", 0, 2)
    for layer in range(depth):
        trial.suggest_int(f"width{layer}", 8, 64 * depth, step=8)
    return {"hidden_width": 256 - depth}


def by_size(trial: Asked) -> dict[str, Any]:
    lr = trial.suggest_float("lr", 0.0, 1.0)
    if lr > 0.25:
        trial.suggest_int("more", 1, 2)
    return {"lr": lr}


def by_nothing(trial: Asked) -> dict[str, Any]:
    lr = trial.suggest_float("lr", 0.0, 1.0)
    if int(lr * 1000) % 2:
        trial.suggest_int("odd", 1, 2)
    return {"lr": lr}


@pytest.mark.parametrize(
    ("suggest", "words"),
    [
        (by_choice, {"wide": "one of True, False", "hidden_width": "300 to 400; if wide is True"}),
        (
            nested,
            {
                "kind": "one of 'plain', 'a', 'b'",
                "slow": "one of True, False; if kind is 'a' or 'b'",
                "lr": "0.001 to 0.01, logarithmic; if slow is True",
            },
        ),
        (
            both,
            {
                "one": "one of 1, 2",
                "two": "one of 'x', 'y'",
                "small": "0.0 to 1.0; if one is 2 and two is 'y'",
                "lr": "what suggest(trial) makes of these",
            },
        ),
        (
            by_count,
            {
                "depth": "0 to 2",
                "width0": "8 to 128, a part of it that depends on the trial; "
                "if depth is at least 1",
                "width1": "8 to 128, step 8; if depth is at least 2",
                "hidden_width": "what suggest(trial) makes of these",
            },
        ),
        (
            by_nothing,
            {"lr": "0.0 to 1.0", "odd": "1 to 2; if suggest(trial) asks for it"},
        ),
    ],
)
def test_draws_find_names_ranges_and_conditions(
    suggest: Callable[[Asked], dict[str, Any]], words: dict[str, str]
) -> None:
    assert describe_space(Study(experiment=Baseline(), suggest=suggest)) == words


def test_a_limit_between_numbers_is_given_as_well_as_the_draws_know_it() -> None:
    words = describe_space(Study(experiment=Baseline(), suggest=by_size))["more"]
    before, number = words.rsplit(" ", 1)
    assert before == "1 to 2; if lr is above about"
    assert 0.23 < float(number) <= 0.25


def test_a_field_that_suggest_sets_by_itself_is_searched() -> None:
    study = Study(experiment=Baseline(), suggest=by_count)
    assert study.searches("hidden_width")
    assert not study.searches("lr")
    assert not study.searches("num_epochs")
