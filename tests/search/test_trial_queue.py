"""Claims under real deaths: the budget is met exactly, nothing is lost, nothing is drawn twice."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.baseline import Baseline
from harness.base.errors import BadRequest, RunFailed
from harness.base.ownership import Owner
from harness.search import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    Study,
    trial_queue,
)
from harness.search.claimed_trial import ClaimedTrial
from harness.search.opening import budget, open_study
from harness.search.samplers import SamplerName, grid
from harness.search.storage import lock, open_storage, storage_url
from harness.search.trial_queue import NothingToClaim, Search, claim, count, tell

EPOCHS = 3

SPACE = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "batch_size": CategoricalDistribution([64, 128, 256]),
    "hidden_width": IntDistribution(16, 1024, log=True),
}

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def search_in(folder: Path, **changes: Any) -> Search:
    study = Study(
        experiment=changes.pop("experiment", Baseline(dataset="digits", num_epochs=EPOCHS)),
        space=changes.pop("space", SPACE),
        suggest=changes.pop("suggest", None),
    )
    url = storage_url(f"sqlite:///{folder}/optuna.db")
    return Search(study=study, **{"study_name": "a", "url": url, "n_trials": 8, **changes})


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage whose tables exist: to create them takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("storage") / "optuna.db"
    open_storage(storage_url(f"sqlite:///{path}"))
    return path


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, empty_storage: Path) -> None:
    with sqlite3.connect(empty_storage) as database:
        database.execute("VACUUM INTO ?", (str(tmp_path / "optuna.db"),))


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return search_in(tmp_path)


def accuracies_of(params: dict[str, Any]) -> list[float]:
    """Accuracies of a training that follow from the parameters, and from nothing else."""
    dice = random.Random(repr(sorted(params.items())))
    best = dice.random()
    return [best * (1 - 0.5**epoch) for epoch in range(1, EPOCHS + 1)]


def train(
    stored: optuna.Study, trial: Trial, accuracies: Sequence[float], seconds: float = 0.0
) -> str:
    """Report a made-up training epoch by epoch, and end the trial; return its outcome."""
    claimed = ClaimedTrial(stored, trial)
    for epoch, accuracy in enumerate(accuracies, 1):
        time.sleep(seconds)
        metrics = {
            "validation/accuracy": accuracy,
            "time/train_seconds": 0.2,
            "time/evaluate_seconds": 0.05,
        }
        if stop := claimed.report(epoch, metrics, may_prune=epoch < len(accuracies)):
            claimed.end(stop)
            return stop
    claimed.end("completed")
    return "completed"


def work(search: Search, seconds: float = 0.0, told: int | None = None) -> None:
    """What a coordinator does: take trials until there are no more; a byte to `told` for each."""
    stored = search.stored(open_storage(search.url))
    while True:
        try:
            trial = claim(search, stored)
        except NothingToClaim:
            return
        if trial is None:
            time.sleep(0.02)
            continue
        train(stored, trial, accuracies_of(trial.params), seconds)
        if told is not None:
            os.write(told, b".")


def fork(function: Callable[[], None]) -> int:
    """Run a function in a process of its own; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    finally:
        os._exit(status)


def finished(stored: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, in the order in which they ended."""
    trials = [
        t for t in stored.get_trials() if t.user_attrs.get("outcome") not in (None, "interrupted")
    ]
    return sorted(trials, key=lambda trial: str(trial.datetime_complete))


def summary(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    return [(t.params, t.value, t.user_attrs["outcome"], t.last_step) for t in trials]


def orphan(stored: optuna.Study, trial: Trial) -> None:
    """Make it look as if the trial's process had died."""
    dead = dataclasses.replace(Owner.current(), started="1")
    trial.set_user_attr("owner", str(dead))


# Repeatable and whole, whoever dies


@pytest.mark.processes
@forks
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "grid"])
def test_a_study_that_is_killed_again_and_again_draws_the_trials_of_an_uninterrupted_one(
    tmp_path: Path, sampler: SamplerName
) -> None:
    uninterrupted, killed = (
        search_in(tmp_path, study_name=name, sampler=sampler, n_trials=14)
        for name in ("uninterrupted", "killed")
    )
    expected = open_study(uninterrupted)
    stored = open_study(killed)
    work(uninterrupted)

    dice = random.Random(sampler)
    kills = 0
    while True:
        reading, writing = os.pipe()
        pid = fork(partial(work, killed, 0.005, writing))
        os.close(writing)
        if os.read(reading, 1):  # one has ended, so that no trial dies twice
            time.sleep(dice.uniform(0, 0.06))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        if status == 0:
            break
        assert status == signal.SIGKILL
        kills += 1
    assert kills >= 5

    assert summary(finished(stored)) == summary(finished(expected))
    assert len(finished(stored)) == 14
    assert {t.state for t in stored.trials} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    }
    assert expected.trials[0].params == uninterrupted.study.defaults()
    if sampler != "grid":
        assert {t.user_attrs["outcome"] for t in finished(stored)} == {"completed", "pruned"}


@pytest.mark.processes
@forks
def test_three_workers_meet_the_budget_exactly_though_one_is_killed(tmp_path: Path) -> None:
    search = search_in(tmp_path, n_trials=21, sampler="random", pruner="none")
    open_study(search)
    reading, writing = os.pipe()
    workers = [fork(partial(work, search, 0.01, writing)) for _ in range(3)]
    for _ in range(6):
        os.read(reading, 1)
    os.kill(workers[0], signal.SIGKILL)
    statuses = [os.waitpid(pid, 0)[1] for pid in workers]
    os.close(reading)
    os.close(writing)
    assert statuses == [signal.SIGKILL, 0, 0]
    stored = search.stored(open_storage(search.url))
    trials = finished(stored)
    assert len(trials) == 21
    assert len({str(t.params) for t in trials}) == 21, "two workers drew the same"
    assert count(stored.get_trials()).running == 0


def test_one_seed_gives_the_same_trials_and_another_one_others(tmp_path: Path) -> None:
    found = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        search = search_in(tmp_path, study_name=name, sampler_seed=seed, n_trials=4)
        stored = open_study(search)
        work(search)
        found.append(summary(finished(stored)))
    assert found[0] == found[1]
    assert found[0] != found[2]


# The life of a trial


def test_the_trial_of_a_dead_process_is_queued_twice_and_then_counts_as_failed(
    search: Search,
) -> None:
    stored = open_study(search)
    drawn = []
    for _ in range(3):
        trial = claim(search, stored)
        assert trial is not None
        drawn.append(trial.params)
        orphan(stored, trial)
    following = claim(search, stored)
    assert following is not None
    assert drawn == [search.study.defaults()] * 3
    assert following.params != drawn[0]
    outcomes = [trial.user_attrs.get("outcome") for trial in stored.trials]
    assert outcomes == ["interrupted", "interrupted", "failed", None]
    assert stored.trials[2].user_attrs["reason"] == "its process died 3 times"
    counts = count(stored.get_trials())
    assert (counts.failed, counts.finished, counts.running, counts.waiting) == (1, 1, 1, 0)


def test_a_trial_whose_process_died_while_asking_is_drawn_again(search: Search) -> None:
    stored = open_study(search)
    tell(stored, one(claim(search, stored)), "completed", [0.5], {})
    trial = one(claim(search, stored))
    drawn = trial.params
    # As if it had died after its first parameter, before it could sign.
    with sqlite3.connect(search.url.removeprefix("sqlite:///")) as database:
        number = "trial_id = (SELECT max(trial_id) FROM trials)"
        database.execute(f"DELETE FROM trial_user_attributes WHERE {number}")
        database.execute(f"DELETE FROM trial_params WHERE {number} AND param_name != 'lr'")
    fresh = search.stored(open_storage(search.url))
    assert one(claim(search, fresh)).params == drawn


def test_a_trial_that_ends_in_order_while_others_claim_is_not_taken_for_an_orphan(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = open_study(search)
    trial = one(claim(search, stored))
    other = search.stored(open_storage(search.url))

    def ends_meanwhile(owner: Owner, last_seen: float) -> bool:
        if other.trials[0].state == TrialState.RUNNING:
            tell(other, Trial(other, trial._trial_id), "completed", [0.5], {})
        return True

    monkeypatch.setattr(Owner, "is_dead", ends_meanwhile)
    assert claim(search, stored) is not None
    assert [t.user_attrs.get("outcome") for t in stored.trials] == ["completed", None]
    assert stored.trials[0].value == 0.5


def test_an_interruption_gives_the_trial_back_and_counts_as_no_death(search: Search) -> None:
    stored = open_study(search)

    for _ in range(4):
        ClaimedTrial(stored, one(claim(search, stored))).end("interrupted")
    assert one(claim(search, stored)).params == search.study.defaults()
    assert count(stored.get_trials()).finished == 0
    assert [t.user_attrs.get("retries", 0) for t in stored.trials] == [0] * 5


def test_a_trial_that_is_given_back_twice_is_queued_once(search: Search) -> None:
    stored = open_study(search)
    trial = one(claim(search, stored))
    frozen = stored.trials[trial.number]
    # The first one dies after it has queued the trial.
    stored.enqueue_trial(frozen.params, user_attrs={"retry_of": frozen.number, "retries": 1})
    trial_queue.requeue(stored, frozen, retries=1)
    assert [t.state for t in stored.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_of_another_machine_waits_for_a_person(search: Search) -> None:
    stored = open_study(search)
    trial = one(claim(search, stored))
    elsewhere = dataclasses.replace(Owner.current(), boot="another", machine="another", started="1")
    trial.set_user_attr("owner", str(elsewhere))
    single = dataclasses.replace(search, n_trials=1)
    assert claim(single, stored) is None
    assert [t.number for t in trial_queue.foreign(stored)] == [0]
    assert trial_queue.release(stored) == 1
    assert one(claim(single, stored)).params == search.study.defaults()
    assert trial_queue.release(stored) == 0, "that one is here"


def test_a_trial_that_was_requeued_meanwhile_stops_with_its_next_epoch(search: Search) -> None:
    stored = open_study(search)
    claimed = ClaimedTrial(stored, one(claim(search, stored)))
    metrics = {"validation/accuracy": 0.5, "time/train_seconds": 0.0, "time/evaluate_seconds": 0.0}
    assert claimed.report(1, metrics, may_prune=True) is None
    trial_queue.requeue(stored, stored.trials[0], retries=0)
    assert claimed.report(2, metrics, may_prune=True) == "interrupted"
    assert not claimed.end("interrupted")
    assert count(stored.get_trials()).waiting == 1


def one(trial: Trial | None) -> Trial:
    assert trial is not None
    return trial


# How a trial ends


def test_a_hopeless_trial_is_pruned(search: Search) -> None:
    stored = open_study(search)
    for _ in range(5):
        train(stored, one(claim(search, stored)), [0.5] * 3)
    assert train(stored, one(claim(search, stored)), [0.1] * 3) == "pruned"
    assert stored.trials[5].state == TrialState.PRUNED
    assert stored.trials[5].last_step == 1


def test_a_diverged_trial_never_wins_and_equals_go_to_the_earliest(search: Search) -> None:
    stored = open_study(search)
    for outcome, value in (("diverged", 0.99), ("completed", 0.5), ("completed", 0.5)):
        tell(stored, one(claim(search, stored)), outcome, [value], {})
    best = next(iter(trial_queue.chosen(stored)), None)
    assert best is not None
    assert best.number == 1
    assert count(stored.get_trials()).finished == 3


def test_five_failures_in_a_row_stop_the_study_until_it_is_begun_again(search: Search) -> None:
    stored = open_study(search)
    outcomes = ["failed"] * 4 + ["completed"] + ["failed"] * 5
    for number, outcome in enumerate(outcomes):
        trial = one(claim(dataclasses.replace(search, n_trials=20), stored))
        tell(stored, trial, outcome, [0.5], {"reason": f"broken {number}"})
    longer = dataclasses.replace(search, n_trials=20)
    with pytest.raises(NothingToClaim, match="the last 5 trials failed: broken 9"):
        claim(longer, stored)
    trial_queue.forgive_failures(stored)
    assert claim(longer, stored) is not None


# What is tried first


def test_trial_0_is_the_defaults_also_outside_of_a_range(tmp_path: Path) -> None:
    space = {"lr": FloatDistribution(1e-3, 1e-2, log=True)}
    for sampler in ("tpe", "gp", "qmc"):
        search = search_in(tmp_path, study_name=sampler, space=space, sampler=sampler, n_trials=13)
        stored = open_study(search)
        work(search)
        first, *others = [trial.params["lr"] for trial in finished(stored)]
        assert first == 0.1
        assert all(1e-3 <= lr <= 1e-2 for lr in others)
        assert len(others) == 12


def conditional(trial: Trial | FrozenTrial) -> dict[str, Any]:
    wide = trial.suggest_categorical("wide", [True, False])
    width = trial.suggest_int("hidden_width", 300, 400) if wide else 256
    return {"lr": trial.suggest_float("lr", 1e-2, 1.0, log=True), "hidden_width": width}


def test_a_conditional_space_finds_the_way_to_its_defaults(tmp_path: Path) -> None:
    search = search_in(tmp_path, space={}, suggest=conditional, n_trials=6)
    stored = open_study(search)
    suggested = []
    for _ in range(6):
        trial = one(claim(search, stored))
        suggested.append(search.study.suggested(trial))
        tell(stored, trial, "completed", [0.5], {})
    assert suggested[0] == search.study.experiment
    assert stored.trials[0].params == {"wide": False, "lr": 0.1}
    assert len({str(experiment) for experiment in suggested}) == 6
    assert any(experiment.hidden_width >= 300 for experiment in suggested)  # type: ignore[attr-defined]


def test_a_warm_start_tries_the_best_of_another_study_first(tmp_path: Path) -> None:
    other = search_in(tmp_path, study_name="other", sampler="random", n_trials=8)
    before = open_study(other)
    work(other)
    best = sorted(trial_queue.completed(before), key=lambda t: (-(t.value or 0), t.number))[:5]

    space = {
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "batch_size": CategoricalDistribution([32, 256]),
    }
    search = search_in(tmp_path, study_name="new", space=space)
    stored = open_study(search, warm_start="other")
    queued = [trial.system_attrs["fixed_params"] for trial in stored.trials]
    assert queued[0] == {"lr": 0.1, "batch_size": 256}
    expected = [
        {"lr": t.params["lr"]} | ({"batch_size": 256} if t.params["batch_size"] == 256 else {})
        for t in best
    ]
    assert queued[1:] == [parameters for parameters in expected if parameters != queued[0]]
    work(search)  # choices that are no longer offered are drawn
    assert len(finished(stored)) == 8
    assert len(open_study(search, warm_start="other").trials) == len(stored.trials)


def test_an_unknown_warm_start_leaves_no_study_behind(search: Search) -> None:
    open_study(dataclasses.replace(search, study_name="lr_search"))
    with pytest.raises(BadRequest, match="Did you mean lr_search"):
        open_study(search, warm_start="lr_serch")
    assert optuna.get_all_study_names(search.url) == ["lr_search"]


# A stored study stays what it was declared as


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"experiment": Baseline(dataset="digits", num_epochs=4)},
            "num_epochs was 3, is 4",
        ),
        (
            {"experiment": Baseline(dataset="digits", num_epochs=3, lr=0.2)},
            "lr was 0.1, is 0.2",
        ),
        (
            {"space": {**SPACE, "lr": FloatDistribution(1e-3, 0.5, log=True)}},
            "lr was 0.001 to 1.0, logarithmic, is 0.001 to 0.5, logarithmic",
        ),
        (
            {"space": {**SPACE, "batch_size": CategoricalDistribution([64, 256])}},
            "batch_size was one of 64, 128, 256, is one of 64, 256",
        ),
        ({"space": {"lr": SPACE["lr"], "batch_size": SPACE["batch_size"]}}, "is not there"),
        ({"sampler": "random"}, "sampler was tpe, is random"),
        ({"sampler_seed": 3}, "sampler_seed was 0, is 3"),
        ({"pruner": "none"}, "pruner was median, is none"),
        ({"space": {}, "suggest": conditional}, "suggest"),
    ],
)
def test_a_study_that_was_begun_otherwise_is_refused(
    search: Search, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    open_study(search)
    changed = search_in(tmp_path, **changes)
    with pytest.raises(BadRequest) as refusal:
        open_study(changed)
    assert words in str(refusal.value)
    assert "--study-name" in str(refusal.value)
    assert "--warm-start a" in str(refusal.value)
    assert len(open_study(search).trials) == 1


def test_a_creation_that_was_cut_off_is_begun_anew(search: Search) -> None:
    optuna.create_study(storage=open_storage(search.url), study_name="a", direction="maximize")
    stored = open_study(search)
    assert [t.system_attrs["fixed_params"] for t in stored.trials] == [search.study.defaults()]


def test_somebody_elses_study_is_refused(search: Search) -> None:
    theirs = optuna.create_study(
        storage=open_storage(search.url), study_name="a", direction="maximize"
    )
    theirs.tell(theirs.ask(), 1.0)
    with pytest.raises(BadRequest, match="not created by the harness"):
        open_study(search)


# Grids


def test_a_grid_grows_finer_and_holds_what_came_before(search: Search) -> None:
    space = {"lr": FloatDistribution(1e-4, 1.0, log=True)}
    study = dataclasses.replace(search.study, space=space)
    points = grid(study)
    values = [next(points)["lr"] for _ in range(9)]
    assert values[:5] == pytest.approx([1e-4, 1.0, 1e-2, 1e-3, 1e-1])
    assert len(set(values)) == 9


def test_a_grid_of_choices_and_whole_numbers_ends(tmp_path: Path) -> None:
    space = {
        "batch_size": CategoricalDistribution([64, 256]),
        "hidden_width": IntDistribution(16, 32, step=8),
    }
    search = search_in(tmp_path, space=space, sampler="grid", n_trials=100)
    assert sorted(str(point) for point in grid(search.study)) == sorted(
        str({"batch_size": size, "hidden_width": width})
        for size in (64, 256)
        for width in (16, 24, 32)
    )
    search = dataclasses.replace(search, n_trials=budget(search))
    assert search.n_trials == 7, "six points, and the defaults beside them"
    stored = open_study(search)
    work(search)
    assert len({str(t.params) for t in finished(stored)}) == 7


# Storages


def test_one_file_has_one_lock_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {
        storage_url(f"sqlite:///{name}") for name in ("mlruns/o.db", "./mlruns/../mlruns/o.db")
    }
    assert named == {f"sqlite:///{tmp_path / 'mlruns/o.db'}"}, "from here, not from the root"
    (tmp_path / "link.db").symlink_to(tmp_path / "o.db")
    urls = [storage_url(f"sqlite:///{tmp_path}/{name}.db") for name in ("o", "link")]
    assert urls[0] == urls[1]
    assert lock(urls[0]).lock_file == lock(urls[1]).lock_file
    assert lock(urls[0]).lock_file != lock(urls[0], "confirmation").lock_file


@pytest.mark.parametrize(
    "url", ["optuna.db", "sqlite://", "sqlite:///:memory:", "nonsense://x/y", "redis://x"]
)
def test_a_url_that_workers_cannot_share_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="storage"):
        storage_url(url)


def test_a_storage_that_cannot_be_opened_keeps_its_password(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text(
        "This is no database, and long enough to be seen as none. " * 9
    )
    with pytest.raises(RunFailed, match="is damaged"):
        open_storage(storage_url(f"sqlite:///{tmp_path}/text.db"))
    with pytest.raises(RunFailed) as failure:
        open_storage(storage_url("mysql://ann:hidden@127.0.0.1:1/x"))
    assert "hidden" not in str(failure.value)
