"""Opens a stored study: creates it as declared, or checks that its declaration is the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from harness.base.errors import BadRequest, nearest
from harness.search.samplers import grid, sampler_text
from harness.search.storage import has_no_file, lock, open_storage
from harness.search.trial_queue import Search, completed, goals_of, version_of

WARM_STARTS = 5
"""How many trials of another study a warm start tries first."""


def open_study(
    search: Search, warm_start: str | None = None, *, accept_changed_code: bool = False
) -> optuna.Study:
    """Create the stored study with the defaults as trial 0, or open it if it exists.

    Args:
        accept_changed_code: go on although the code has changed; the trials from now on are of
            another version.

    Raises:
        BadRequest: its declaration or its code has changed, it is no study of the harness's, or
            the study of the warm start does not exist.
    """
    if warm_start and has_no_file(search.url):
        raise BadRequest(f"warm_start: there is no stored study {warm_start!r}, nor any other.")
    storage = open_storage(search.url)
    declaration = json.loads(json.dumps(declared(search)))
    with lock(search.url):
        known = optuna.get_all_study_names(storage)
        if warm_start and warm_start not in known:
            raise BadRequest(
                f"warm_start: there is no stored study {warm_start!r}. {nearest(warm_start, known)}"
            )
        if search.study_name not in known:
            optuna.create_study(
                storage=storage,
                study_name=search.study_name,
                directions=[goal.direction for goal in search.study.goals],
            )
        stored = search.stored(storage)
        before = stored.user_attrs.get("declaration")
        if before is not None:
            goals_of(stored)  # it can be read
        if before is None:
            _check_directions(stored, search)
            _begin(stored, search, _best_of(storage, warm_start, search) if warm_start else [])
            # Last: a study whose creation was cut off is created again.
            stored.set_user_attr("declaration", declaration)
        elif changes := _changes(before, declaration):
            raise BadRequest(
                f"The stored study {search.study_name!r} has another declaration: "
                f"{'; '.join(changes)}.\nContinue it with the old values, or start another "
                f"--study-name, with --warm-start {search.study_name} to begin from its best."
            )
        else:
            _check_directions(stored, search)
            _check_distributions(stored, search)
        _check_code(stored, search, accept_changed_code)
        return stored


def _check_directions(stored: optuna.Study, search: Search) -> None:
    found = [direction.name.lower() for direction in stored.directions]
    goals = search.study.goals
    if found != [goal.direction for goal in goals]:
        declared_goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in goals)
        raise BadRequest(
            f"The stored study {search.study_name!r} was created to {', '.join(found)}; "
            f"declared is: {declared_goals}. Choose another --study-name."
        )


def _check_distributions(stored: optuna.Study, search: Search) -> None:
    """Refuse trials that somebody has added with other ranges than the declared ones."""
    for trial in stored.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            wanted = search.study.space.get(name, distribution)
            if distribution != wanted:
                raise BadRequest(
                    f"The stored study {search.study_name!r} has a trial of other ranges: {name} "
                    f"of trial {trial.number} is from {distribution}, declared is {wanted}. Choose "
                    "another --study-name."
                )


def _check_code(stored: optuna.Study, search: Search, accept: bool) -> None:
    now, before = search.study.sources(), stored.user_attrs.get("code")
    if before is None or before == now:
        if before is None:
            stored.set_user_attr("code", now)
        return
    before = before if isinstance(before, dict) else {}
    changed = sorted(
        path for path in before.keys() | now.keys() if before.get(path) != now.get(path)
    )
    if not accept:
        raise BadRequest(
            f"The code of the stored study {search.study_name!r} has changed: {', '.join(changed)}."
            "\nTrials by different code cannot be compared. Start another --study-name, or go on "
            "with --accept-changed-code: everything is confirmed anew, and each trial's version is "
            "marked."
        )
    stored.set_user_attr("version", version_of(stored) + 1)
    stored.set_user_attr("code", now)


def budget(search: Search) -> int:
    """The number of trials to finish; a grid has no more trials than points."""
    if search.sampler != "grid":
        return search.n_trials
    first = search.study.defaults()
    others = (point for point in grid(search.study) if point != first)
    return 1 + sum(1 for _ in itertools.islice(others, search.n_trials - 1))


def declared(search: Search) -> dict[str, Any]:
    """What must stay the same when a stored study continues."""
    return search.study.declaration() | {
        "data": dict(search.data),
        "search": {
            "sampler": sampler_text(search.sampler),
            "sampler_seed": search.sampler_seed,
            "pruner": search.pruner,
        },
    }


def _begin(stored: optuna.Study, search: Search, others: list[dict[str, Any]]) -> None:
    trials = stored.get_trials(deepcopy=False)
    if any(trial.state != TrialState.WAITING for trial in trials):
        raise BadRequest(
            f"The stored study {search.study_name!r} was not created by the harness. "
            "Choose another --study-name."
        )
    for parameters in [search.study.defaults(), *others]:
        stored.enqueue_trial(parameters, skip_if_exists=True)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if before.get("experiment") != now["experiment"]:
        return [f"experiment was {before.get('experiment')}, is {now['experiment']}"]
    changes = []
    for part in ("fields", "space", "metrics", "objectives", "data", "search"):
        then = before.get(part, {})
        what = "data: " if part == "data" else ""
        changes += [
            f"{what}{key} was {then.get(key, 'not there')}, is {now[part].get(key, 'not there')}"
            for key in sorted(then.keys() | now[part].keys())
            if then.get(key) != now[part].get(key)
        ]
    return changes


def _best_of(storage: RDBStorage, name: str, search: Search) -> list[dict[str, Any]]:
    """The best trials of another study, restricted to what this study searches."""
    other = optuna.load_study(study_name=name, storage=storage)
    trials = completed(other)
    sign = goals_of(other)[0].sign
    trials.sort(key=lambda trial: (-sign * trial.values[0], trial.number))
    space = search.study.space
    return [
        {
            field: value
            for field, value in trial.params.items()
            if not space or (field in space and _possible(space[field], value))
        }
        for trial in trials[:WARM_STARTS]
    ]


def _possible(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False
