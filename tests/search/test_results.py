"""What a stored study has found is read back as plain data, all of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from experiments.baseline import Baseline
from harness.base.trials import SearchedParameter, TrialRow
from harness.search import (
    CategoricalDistribution,
    FloatDistribution,
    FrozenTrial,
    IntDistribution,
    Study,
    Trial,
)
from harness.search.importance import FEWEST_TRIALS
from harness.search.opening import open_study
from harness.search.results import searched_parameters, study_summary, trial_rows, trials_csv
from harness.search.storage import storage_url
from harness.search.trial_queue import Search, claim, count, place_of, requeue, tell

SPACE = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "batch_size": CategoricalDistribution([64, 256]),
    "hidden_width": IntDistribution(16, 256, step=16),
}

Suggest = Callable[[Trial | FrozenTrial], dict[str, Any]]


def search_in(folder: Path, n_trials: int = 4, suggest: Suggest | None = None) -> Search:
    study = Study(
        experiment=Baseline(dataset="digits"), space={} if suggest else SPACE, suggest=suggest
    )
    url = storage_url(f"sqlite:///{folder}/optuna.db")
    return Search(study, "some", url, n_trials=n_trials, sampler="random")


def next_trial(search: Search, stored: optuna.Study) -> optuna.Trial:
    trial = claim(search, stored)
    assert trial is not None
    return trial


@pytest.fixture
def stored(tmp_path: Path) -> optuna.Study:
    """A study with a trial of every kind."""
    search = search_in(tmp_path)
    study = open_study(search)
    first = next_trial(search, study)
    first.report(0.5, 1)
    first.report(0.75, 2)
    first.set_user_attr("run_id", "f" * 32)
    tell(study, first, "completed", [0.75], {"training_seconds": 1.5, "worker": 3})
    tell(study, next_trial(search, study), "failed", [], {"reason": "broken, badly"})
    interrupted = next_trial(search, study)
    requeue(study, study.trials[interrupted.number], retries=0)
    next_trial(search, study)
    return study


def test_two_trials_that_end_at_once_have_places_of_their_own(stored: optuna.Study) -> None:
    assert [place_of(stored, number) for number in (0, 1)] == [1, 2]
    assert count(stored.trials).finished == 2


def test_rows_hold_what_the_storage_has(stored: optuna.Study) -> None:
    first, failed, interrupted, retry = trial_rows(stored)
    trial = stored.trials[0]
    assert trial.duration is not None
    assert first == TrialRow(
        number=0,
        outcome="completed",
        values=(0.75,),
        params={"lr": 0.1, "batch_size": 256, "hidden_width": 256},
        intermediate_values={1: 0.5, 2: 0.75},
        num_epochs=2,
        seconds=trial.duration.total_seconds(),
        training_seconds=1.5,
        run_id="f" * 32,
        owner=trial.user_attrs["owner"],
        worker=3,
    )
    assert (failed.outcome, failed.value, failed.reason) == ("failed", None, "broken, badly")
    assert (interrupted.outcome, interrupted.retry_of) == ("interrupted", None)
    assert (retry.outcome, retry.retry_of, retry.seconds) == ("running", 2, None)
    assert retry.params == interrupted.params


def test_the_csv_has_every_trial_and_a_column_for_each_parameter(stored: optuna.Study) -> None:
    text = trials_csv(trial_rows(stored))
    table = list(csv.DictReader(io.StringIO(text)))
    assert list(table[0]) == [
        *("number", "outcome", "value", "lr", "batch_size", "hidden_width", "num_epochs"),
        *("seconds", "training_seconds", "reason", "retry_of", "version", "run_id"),
    ]
    assert [row["outcome"] for row in table] == ["completed", "failed", "interrupted", "running"]
    assert (table[0]["lr"], table[0]["batch_size"], table[0]["num_epochs"]) == ("0.1", "256", "2")
    assert (table[1]["value"], table[1]["reason"]) == ("", "broken, badly")
    assert (table[3]["retry_of"], table[3]["seconds"]) == ("2", "")


def test_parameters_say_what_was_searched(stored: optuna.Study) -> None:
    assert searched_parameters(stored) == [
        SearchedParameter("lr", low=1e-3, high=1.0, log=True),
        SearchedParameter("batch_size", choices=(64, 256)),
        SearchedParameter("hidden_width", low=16, high=256, step=16),
    ]


def test_a_conditional_space_has_the_parameters_of_all_trials(tmp_path: Path) -> None:
    def suggest(trial: Trial | FrozenTrial) -> dict[str, Any]:
        values: dict[str, Any] = {"batch_size": trial.suggest_categorical("batch_size", [64, 256])}
        if values["batch_size"] == 256:
            values["lr"] = trial.suggest_float("lr", 0.01, 1.0)
        return values

    search = search_in(tmp_path, 30, suggest)
    stored = open_study(search)
    for _ in range(10):
        trial = next_trial(search, stored)
        suggest(trial)
        tell(stored, trial, "completed", [0.5], {})
    rows = trial_rows(stored)
    assert {frozenset(row.params) for row in rows} == {
        frozenset({"batch_size"}),
        frozenset({"batch_size", "lr"}),
    }
    assert [parameter.name for parameter in searched_parameters(stored)] == ["batch_size", "lr"]
    header, *lines = csv.reader(io.StringIO(trials_csv(rows)))
    assert {line[header.index("lr")] == "" for line in lines} == {True, False}


def test_the_summary_is_what_the_storage_knows(stored: optuna.Study) -> None:
    summary = study_summary(stored)
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["study"], summary["sampler"]) == ("some", "random")
    assert summary["objectives"] == [{"metric": "validation/accuracy", "direction": "maximize"}]
    assert summary["defaults"] == {"lr": 0.1, "batch_size": 256, "hidden_width": 256}
    assert summary["chosen"] == [{"trial": 0, "parameters": summary["defaults"], "values": [0.75]}]
    assert (summary["counts"]["completed"], summary["counts"]["failed"]) == (1, 1)
    assert summary["importances"] == {}
    (warning,) = summary["warnings"]
    assert "hidden_width (256) lies at the upper bound" in warning


def test_importances_need_enough_trials(tmp_path: Path) -> None:
    search = search_in(tmp_path, FEWEST_TRIALS)
    stored = open_study(search)
    assert study_summary(stored)["chosen"] == []
    for number in range(FEWEST_TRIALS):
        assert study_summary(stored)["importances"] == {}
        trial = next_trial(search, stored)
        tell(stored, trial, "completed", [trial.params["lr"]], {})
        assert len(trial_rows(stored)) == number + 1
    found = study_summary(stored)["importances"]
    assert next(iter(found)) == "lr"
    assert found.keys() == SPACE.keys()
    assert sum(found.values()) == pytest.approx(1)
