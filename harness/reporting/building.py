"""Builds the report of whatever has a name in the record: a study or an experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.base import discovery, project, signals
from harness.base.errors import BadRequest, nearest
from harness.base.privacy import mask
from harness.tracking.reader import reader as open_reader
from harness.tracking.recorder_process import RecorderProcess

if TYPE_CHECKING:
    from harness.search.storage import StoredStudy


@dataclass(frozen=True)
class Report:
    """An HTML page.

    Attributes:
        run_id: the study's run, which keeps a copy of the page; None for an experiment.
    """

    page: bytes
    kind: Literal["study", "experiment"]
    run_id: str | None = None


def build(name: str, storage: str | None) -> Report:
    """Build the report of a study or an experiment from its record.

    Args:
        storage: URL of the study's Optuna storage; None for the project's own.

    Raises:
        BadRequest: nothing is recorded under the name, or the storage lacks the study's trials.
    """
    reader = open_reader()
    recorded = reader.experiments()
    kinds = {run.kind for run in reader.listing(name)} if name in recorded else set()
    if not kinds:
        raise _nothing_recorded(name, recorded)
    return _of_study(name, storage) if "study" in kinds else _of_experiment(name)


def _of_study(name: str, storage_address: str | None) -> Report:
    # MLflow takes as long to import as what follows: the recorder's process does it meanwhile.
    with closing(RecorderProcess()) as recorder:
        recorder.prepare()
        # Libraries swallow an interruption in the middle of their import, and then fail.
        with signals.deferred():
            from harness.figures import study_figures
            from harness.reporting import study_report
            from harness.search import storage

        url = storage.storage_url(storage_address)
        if name not in storage.stored_names(url):
            raise BadRequest(
                f"storage: the trials of the study {name!r} are not in {mask(url)}; "
                "give the --storage that it was run with."
            )
        stored = storage.load_stored(url, name)
        answer = _answer(stored, recorder)
        confirmed = {
            config: list(confirmation["test_accuracy"].values())
            for config, confirmation in answer["confirmed"].items()
        }
        drawn = study_figures.draw(stored, answer["defaults"], confirmed)
        page = study_report.report(stored, answer, recorder, drawn).encode()
        run_id = str(stored.user_attrs["run_id"])
        recorder.artifacts(run_id, {"report.html": page})
    return Report(page, "study", run_id)


def _answer(stored: StoredStudy, recorder: RecorderProcess) -> dict[str, Any]:
    """The answer that the study's run holds; without one, what its trials say.

    Raises:
        BadRequest: no trial has completed.
    """
    from harness.search.summary import summary

    trials = summary(stored)
    if trials["best"] is None:
        raise BadRequest(f"No trial of the study {stored.study_name!r} has completed yet.")
    run_id = stored.user_attrs["run_id"]
    recorded = recorder.artifact(run_id, "study.json")
    return {
        **trials,
        **{"n_trials": None, "confirmed": {}, "difference": {}, "command": None},
        "device": recorder.stored(run_id).tags["device"],
        **(json.loads(recorded) if recorded else {}),
    }


def _of_experiment(name: str) -> Report:
    with signals.deferred():  # see `_of_study`
        from harness.analysis.query import select
        from harness.cli.compare_flags import CompareSettings
        from harness.reporting import experiment_report

    runs = select(CompareSettings(experiment=name))
    path = project.ROOT / "experiments" / f"{name}.py"
    question = discovery.summary(path) if path.is_file() else ""
    return Report(experiment_report.report(name, question, runs).encode(), "experiment")


def _nothing_recorded(name: str, recorded: Sequence[str]) -> BadRequest:
    for folder, command in (("experiments", "run"), ("studies", "study")):
        if name in discovery.names(folder):
            return BadRequest(
                f"report: {name} has no runs yet. Make some: python -m harness.{command} {name}"
            )
    others = [known for known in recorded if known != "Default"]  # MLflow makes that one itself
    return BadRequest(f"report: there are no runs of {name!r}. {nearest(name, others)}")
