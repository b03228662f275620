"""What a study optimises: declared, resolved, refused; the front of several objectives."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.baseline import Baseline
from harness import FloatDistribution, Objective, Study
from harness.base.errors import BadRequest
from harness.base.goals import Goal, usual_goal
from harness.search.objective import dominates, goal_of
from harness.search.opening import open_study
from harness.search.samplers import SamplerName
from harness.search.storage import storage_url
from harness.search.trial_queue import Search, chosen, claim, tell

KNOWN: dict[str, Any] = {"accuracy": "max", "largest": None, "loss": "min"}


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        (Objective("validation/accuracy"), "maximize"),
        (Objective("validation/loss"), "minimize"),
        (Objective("validation/accuracy", "minimize"), "minimize"),
        (Objective("validation/largest", "maximize"), "maximize"),
        (Objective("model/parameters"), "minimize"),
        (Objective("system/train_seconds"), "minimize"),
        (Objective("weight_norm", "minimize"), "minimize"),
    ],
)
def test_a_direction_is_the_metrics_own_or_that_of_a_cost(
    objective: Objective, direction: str
) -> None:
    assert goal_of(objective, KNOWN) == Goal(objective.metric, direction)  # type: ignore[arg-type]


def test_by_default_a_study_optimises_what_judges_a_run() -> None:
    assert usual_goal(KNOWN) == Goal("validation/accuracy", "maximize")
    assert usual_goal({"largest": None, "loss": "min"}) == Goal("validation/loss", "minimize")


@pytest.mark.parametrize(
    ("metric", "direction", "words"),
    [
        (
            "test/accuracy",
            None,
            "test set, which is looked at once, at the end; use validation/acc",
        ),
        (
            "validation/acuracy",
            None,
            "no metric 'validation/acuracy'. Did you mean validation/accu",
        ),
        ("validation/largest", None, "no direction of its own"),
        ("weight_norm", None, "no direction of its own"),
        ("study/best_value", "maximize", "cannot be one"),
        ("validation/loss", "lower", "'lower' is no direction; use 'maximize' or 'minimize'"),
        ("", None, "expected the name of a metric"),
    ],
)
def test_what_cannot_be_an_objective_is_refused(metric: str, direction: Any, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        goal_of(Objective(metric, direction), KNOWN)
    assert str(refused.value).startswith("objective: ")
    assert words in str(refused.value)


def test_a_study_has_one_objective_or_several_different_ones() -> None:
    space = {"lr": FloatDistribution(0.01, 1)}
    loss = Objective("validation/loss")
    wrong: list[dict[str, Any]] = [
        {"objective": loss, "objectives": [loss]},
        {"objectives": [loss, loss]},
        {"objectives": ["validation/loss"]},
    ]
    for changes in wrong:
        with pytest.raises(BadRequest, match="objective"):
            Study(experiment=Baseline(), space=space, **changes)


values = st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=12)


@given(values)
def test_the_front_holds_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    goals = (Goal("a", "maximize"), Goal("b", "minimize"))
    front = [p for p in points if not any(dominates(q, p, goals) for q in points)]
    assert front
    for p, q in itertools.product(front, points):
        assert not (q[0] >= p[0] and q[1] <= p[1] and q != p)
    for p in set(points) - set(front):
        assert any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in front)


def search_of(tmp_path: Path, objectives: Sequence[Objective], **changes: Any) -> Search:
    study = Study(
        experiment=Baseline(dataset="digits"),
        space={"lr": FloatDistribution(1e-3, 1e3, log=True)},
        objectives=objectives,
    )
    url = storage_url(f"sqlite:///{tmp_path}/optuna.db")
    return Search(study=study, study_name="a", url=url, n_trials=100, **changes)


def test_the_answer_of_several_objectives_is_their_front(tmp_path: Path) -> None:
    search = search_of(tmp_path, [Objective("validation/accuracy"), Objective("model/parameters")])
    stored = open_study(search)
    found = [(0.5, 10.0), (0.9, 30.0), (0.7, 20.0), (0.7, 20.0), (0.6, 40.0), (math.nan, 1.0)]
    for pair in found:
        trial = claim(search, stored)
        assert trial
        tell(stored, trial, "completed", pair, {})
    diverged = claim(search, stored)
    assert diverged
    tell(stored, diverged, "diverged", (math.nan, 1.0), {})
    assert [trial.number for trial in chosen(stored)] == [1, 2, 0]
    assert stored.trials[5].values == stored.trials[6].values == [-math.inf, math.inf]


def test_the_best_has_the_lowest_value_if_that_is_the_objective(tmp_path: Path) -> None:
    search = search_of(tmp_path, [Objective("validation/loss")])
    stored = open_study(search)
    assert chosen(stored) == []
    for value in (0.5, 0.25, 0.75):
        trial = claim(search, stored)
        assert trial
        tell(stored, trial, "completed", [value], {})
    (lowest,) = chosen(stored)
    assert lowest.number == 1


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_to_stay_away_from_what_diverges(
    tmp_path: Path, sampler: SamplerName
) -> None:
    """Above lr 3 every trial diverges; the objective rises towards that edge."""
    search = search_of(tmp_path, [Objective("validation/accuracy")], sampler=sampler)
    stored = open_study(search)
    diverged = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(30):
            trial = claim(search, stored)
            assert trial
            lr = trial.params["lr"]
            diverged.append(lr > 3)
            value = math.nan if lr > 3 else 1 / (1 + (math.log10(lr) - math.log10(3)) ** 2)
            tell(stored, trial, "diverged" if lr > 3 else "completed", [value], {})
    assert sum(diverged) > 0
    # If they were failures to the sampler, it would draw nearly all of the 15 from there.
    assert sum(diverged[15:]) <= 8
    assert optuna.trial.TrialState.FAIL not in {trial.state for trial in stored.trials}


def test_a_study_may_bring_its_own_sampler(tmp_path: Path) -> None:
    seeds: list[int] = []

    def own(seed: int) -> optuna.samplers.BaseSampler:
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    first, again = (
        drawn(search_of(tmp_path / name, [], sampler=own)) for name in ("first", "again")
    )
    assert first == again
    assert len(set(first)) == len(first)
    assert len(set(seeds)) == 3


def test_cmaes_draws_and_repeats_itself(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    first, again = (
        drawn(search_of(tmp_path / name, [], sampler="cmaes"), 8) for name in ("first", "again")
    )
    assert first == again
    assert len(set(first)) == len(first)


def drawn(search: Search, n: int = 3) -> list[float]:
    Path(search.url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    stored = open_study(search)
    rates = []
    for _ in range(n):
        trial = claim(search, stored)
        assert trial
        rates.append(trial.params["lr"])
        tell(stored, trial, "completed", [rates[-1]], {})
    return rates
