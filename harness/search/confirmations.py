"""Confirmations: configurations trained again with several seeds, as their study stores them."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.statistics import Summary, summarize
from harness.base.trials import confirmed_metric
from harness.search.storage import StoredStudy
from harness.search.trial_queue import goals_of, version_of
from harness.training.experiment import Experiment


@dataclass(frozen=True)
class Confirmation:
    """One configuration, trained again on the full training set with several seeds.

    Attributes:
        values: by metric, its value on the test set by seed; NaN where it has none.
        diverged: the seeds with which the training did.
        collapsed: the same.
        run_ids: of the trainings, in the order of the seeds.
        seconds: of all trainings together; None if they were not measured.
    """

    fields: dict[str, Any]
    values: dict[str, dict[int, float]]
    diverged: list[int]
    run_ids: tuple[str, ...] = ()
    seconds: float | None = None
    collapsed: Sequence[int] = ()

    @property
    def n(self) -> int:
        """With how many seeds it was trained."""
        return len(self.run_ids)

    def summary(self, metric: str) -> Summary:
        """Mean, spread and interval of a metric over the seeds."""
        return summarize(list(self.values[metric].values()))


def confirmed_experiment(experiment: Experiment, seed: int) -> Experiment:
    """A configuration as its confirmation trains it: on all training examples."""
    return dataclasses.replace(experiment, seed=seed, validation_size=0)


def is_confirmed(stored: StoredStudy, experiment: Experiment) -> bool:
    """Whether a study has the confirmation of this very experiment, its seed included."""
    return _key(stored, experiment) in stored.user_attrs


def store_confirmation(
    stored: StoredStudy, experiment: Experiment, result: Mapping[str, Any]
) -> None:
    """Keep the result of a confirmation: `outcome`, `metrics`, `run_id`, `seconds`."""
    stored.set_user_attr(_key(stored, experiment), dict(result))


def confirmations(
    stored: StoredStudy, configurations: Mapping[str, Experiment], seeds: Sequence[int]
) -> dict[str, Confirmation]:
    """The stored confirmations of these configurations; empty if any is missing.

    Their metrics are those that confirm the study's objectives.
    """
    metrics = [confirmed_metric(goal.metric) for goal in goals_of(stored)]
    known = stored.user_attrs
    found = {}
    for name, experiment in configurations.items():
        keys = {seed: _key(stored, confirmed_experiment(experiment, seed)) for seed in seeds}
        if not keys or not known.keys() >= set(keys.values()):
            return {}
        results = {seed: known[key] for seed, key in keys.items()}
        diverged, collapsed = (
            [seed for seed, result in results.items() if result["outcome"] == outcome]
            for outcome in ("diverged", "collapsed")
        )
        values = {
            metric: {
                seed: math.nan if (value := result["metrics"].get(metric)) is None else value
                for seed, result in results.items()
            }
            for metric in metrics
        }
        seconds = [result["seconds"] for result in results.values()]
        found[name] = Confirmation(
            experiment.fields(),
            values,
            diverged,
            tuple(result["run_id"] for result in results.values()),
            None if None in seconds else sum(seconds),
            collapsed,
        )
    return found


def _key(stored: StoredStudy, experiment: Experiment) -> str:
    """The attribute of the stored study that holds the confirmation of this very experiment.

    Those by another version of the code have other keys.
    """
    text = json.dumps(experiment.fields(), sort_keys=True)
    version = version_of(stored)
    suffix = f" version {version}" if version > 1 else ""
    return f"confirmation {zlib.crc32(text.encode()):08x} seed {experiment.seed}{suffix}"
