"""Builds the report of whatever has a name in the record: a study or an experiment."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.query import Query, select
from harness.base import discovery, project
from harness.base.errors import BadRequest
from harness.base.privacy import mask
from harness.figures.study_figures import draw_study
from harness.reporting import experiment_report, study_report
from harness.search import results, storage
from harness.search.storage import StoredStudy
from harness.tracking import store_address
from harness.tracking.messages import SaveArtifacts
from harness.tracking.reader import Reader, open_reader
from harness.tracking.recorder_process import RecorderProcess
from harness.tracking.selection import OF_STUDIES, no_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Report:
    """An HTML page.

    Attributes:
        run_id: the study's run, which keeps a copy of the page; None for an experiment, and where
            the store may only be read.
    """

    page: bytes
    kind: Literal["study", "experiment"]
    run_id: str | None = None


def build(name: str, storage_address: str | None) -> Report:
    """Build the report of a study or an experiment from its record.

    Args:
        storage_address: URL of the study's Optuna storage; None for the project's own.

    Raises:
        BadRequest: nothing is recorded under the name, or the storage lacks the study's trials.
    """
    reader = open_reader()
    recorded = reader.experiments()
    kinds = {run.kind for run in reader.runs(name)} if name in recorded else set()
    if not kinds:
        is_study = name in discovery.names("studies")
        raise no_runs(name, is_study, recorded, what="report")
    if "study" in kinds:
        return _of_study(name, storage_address, reader)
    if kinds.intersection(OF_STUDIES):
        raise BadRequest(
            f"report: the run of the study {name} was deleted; its trials are still recorded. "
            "Restore it in MLflow to report on it."
        )
    runs = select(Query(experiment=name), reader)
    path = project.root() / "experiments" / f"{name}.py"
    question = discovery.first_line(path) if path.is_file() else ""
    return Report(
        experiment_report.experiment_page(name, question, runs, reader).encode(), "experiment"
    )


def study_page(
    stored: StoredStudy, answer: Mapping[str, Any], figures: Mapping[str, Figure]
) -> bytes:
    """The report of a study that has a completed trial.

    Args:
        answer: the content of `study.json`.
        figures: by name, from `draw_study`.
    """
    reader = open_reader()
    confirmations = []
    for confirmation in answer["confirmed"].values():
        with contextlib.suppress(BadRequest):  # the run may have been deleted
            confirmations += [reader.run(run_id) for run_id in confirmation["run_ids"][:1]]
    run = reader.run(stored.user_attrs["run_id"])
    rows = results.trial_rows(stored)
    return study_report.study_html(answer, rows, run, confirmations, figures).encode()


def _of_study(name: str, storage_address: str | None, reader: Reader) -> Report:
    reads_only = store_address.is_read_only()
    # The recorder's process imports MLflow while this one draws.
    with nullcontext() if reads_only else closing(RecorderProcess()) as recorder:
        url = storage.storage_url(storage_address)
        if name not in storage.stored_names(url):
            raise BadRequest(
                f"storage: the trials of the study {name!r} are not in {mask(url)}; "
                "give the --storage that it was run with."
            )
        with storage.failures_told(url):
            stored = storage.load_stored(url, name)
            stored.get_trials(deepcopy=False)
        answer = _answer(stored, reader)
        figures = draw_study(
            name,
            results.trial_rows(stored),
            results.searched_parameters(stored),
            answer["defaults"],
            {
                configuration: {
                    metric: [math.nan if value is None else value for value in values.values()]
                    for metric, values in confirmation["values"].items()
                }
                for configuration, confirmation in answer["confirmed"].items()
            },
            {goal["metric"]: goal["direction"] for goal in answer["objectives"]},
            [trial["trial"] for trial in answer["chosen"]],
            importances=answer["importances"],
        )
        page = study_page(stored, answer, figures)
        run_id = str(stored.user_attrs["run_id"])
        if recorder:
            recorder.send(SaveArtifacts(run_id, {"report.html": page}))
    return Report(page, "study", run_id if recorder else None)


def _answer(stored: StoredStudy, reader: Reader) -> dict[str, Any]:
    """The answer that the study's run holds; without one, what its trials say.

    Raises:
        BadRequest: no trial has completed.
    """
    trials = results.study_summary(stored)
    if not trials["chosen"]:
        raise BadRequest(f"No trial of the study {stored.study_name!r} has completed yet.")
    run_id = str(stored.user_attrs.get("run_id"))
    content = reader.artifact(run_id, "study.json")
    try:
        recorded = dict(json.loads(content)) if content else {}
    except (ValueError, TypeError):
        warnings.warn(
            f"study.json of {run_id} is damaged: the report leaves out what it says.", stacklevel=2
        )
        recorded = {}
    return {
        **trials,
        **{"n_trials": None, "confirmed": {}, "difference": {}, "command": None},
        "device": reader.run(run_id).tag("device"),
        **recorded,
    }
