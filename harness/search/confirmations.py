"""Confirmations: configurations trained again with several seeds, as their study stores them."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.statistics import Summary, summarize
from harness.search.storage import StoredStudy
from harness.training.experiment import Experiment


@dataclass(frozen=True)
class Confirmation:
    """One configuration, trained again on the full training set with several seeds.

    Attributes:
        accuracies: test accuracy by seed; 0 if the training diverged.
        diverged: the seeds with which it did.
        run_ids: of the trainings, in the order of the seeds.
        seconds: of all trainings together; None if they were not measured.
    """

    fields: dict[str, Any]
    accuracies: dict[int, float]
    diverged: list[int]
    run_ids: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def summary(self) -> Summary:
        """Mean, spread and interval over the seeds."""
        return summarize(list(self.accuracies.values()))


def confirmed_experiment(experiment: Experiment, seed: int) -> Experiment:
    """A configuration as its confirmation trains it: on all training images."""
    return dataclasses.replace(experiment, seed=seed, validation_size=0)


def is_confirmed(stored: StoredStudy, experiment: Experiment) -> bool:
    """Whether a study has the confirmation of this very experiment, its seed included."""
    return _key(experiment) in stored.user_attrs


def store_confirmation(
    stored: StoredStudy, experiment: Experiment, result: Mapping[str, Any]
) -> None:
    """Keep the result of a confirmation: `outcome`, `accuracy`, `loss`, `run_id`, `seconds`."""
    stored.set_user_attr(_key(experiment), dict(result))


def confirmations(
    stored: StoredStudy, configurations: Mapping[str, Experiment], seeds: Sequence[int]
) -> dict[str, Confirmation]:
    """The stored confirmations of these configurations; empty if any is missing."""
    known = stored.user_attrs
    found = {}
    for name, experiment in configurations.items():
        keys = {seed: _key(confirmed_experiment(experiment, seed)) for seed in seeds}
        if not keys or not known.keys() >= set(keys.values()):
            return {}
        results = {seed: known[key] for seed, key in keys.items()}
        diverged = [seed for seed, result in results.items() if result["outcome"] == "diverged"]
        accuracies = {
            seed: 0.0 if seed in diverged else result["accuracy"]
            for seed, result in results.items()
        }
        seconds = [result["seconds"] for result in results.values()]
        found[name] = Confirmation(
            experiment.fields(),
            accuracies,
            diverged,
            tuple(result["run_id"] for result in results.values()),
            None if None in seconds else sum(seconds),
        )
    return found


def _key(experiment: Experiment) -> str:
    """The attribute of the stored study that holds the confirmation of this very experiment."""
    text = json.dumps(experiment.fields(), sort_keys=True)
    return f"confirmation {zlib.crc32(text.encode()):08x} seed {experiment.seed}"
