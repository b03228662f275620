"""Experiments and studies run from Python, as in a script or a notebook."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from harness.base.command_line import repeatable, run_arguments
from harness.base.errors import BadRequest
from harness.base.outside_code import shared_command
from harness.cli.experiment_run import run_as_asked
from harness.cli.run_flags import RunSettings
from harness.cli.study_flags import StudySettings
from harness.cli.study_progress import study_view
from harness.execution.launch import RunResult
from harness.execution.recorded_code import refuse_in_recorded_code
from harness.search.samplers import PrunerName, SamplerName
from harness.search.study import Study, load_study
from harness.tracking.recorder_process import RecorderProcess
from harness.training.experiment import Experiment
from harness.workers import study_run
from harness.workers.study_answer import StudyAnswer

_ONE_AT_A_TIME = threading.RLock()
"""Trainings in one process would draw from each other's random generators."""


def run_experiment(
    experiment: Experiment,
    *,
    device: str = "auto",
    threads: int = 0,
    matmul_precision: Literal["highest", "high", "medium"] = "highest",
    data_root: Path | str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    figures: bool = True,
    keep_best: bool = False,
    log_average: bool = False,
    start_from: str | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train an experiment with the whole record, as `python -m harness.run` does.

    The options are those of the command; `threads` and `matmul_precision` stay set in this process.
    Calls from several threads are served one after another.

    Args:
        tags: tags for the run, by their names.
        quiet: print no epochs.

    Returns:
        The run's id, outcome (`diverged` or `collapsed`, maybe), epochs and last metrics. It is on
        disk by then.

    Raises:
        BadRequest: an option is wrong, or the data set is too small for the experiment.
        DataUnavailable: the data set is neither on disk nor can it be downloaded.
        RunFailed: the training or its record went wrong. The run is recorded as failed, unless its
            network could not be built.
    """
    refuse_in_recorded_code(experiment)
    if not isinstance(experiment, Experiment):
        raise BadRequest(
            f"experiment: expected an experiment like Baseline(lr=0.05), got {experiment!r}."
        )
    settings = RunSettings(
        device=device,
        threads=threads,
        matmul_precision=matmul_precision,
        data_root=None if data_root is None else Path(data_root),
        run_name=run_name,
        tag=tuple(f"{name}={value}" for name, value in (tags or {}).items()),
        no_figures=not figures,
        keep_best=keep_best,
        log_average=log_average,
        start_from=start_from,
        quiet=quiet,
    )
    # The recorder's process imports MLflow while this one opens the data.
    with _ONE_AT_A_TIME, closing(RecorderProcess()) as recorder:
        result = run_as_asked(experiment, settings, recorder, _command(experiment, settings))
    assert isinstance(result, RunResult)
    return result


def run_study(
    study: str | Study,
    *,
    study_name: str | None = None,
    n_trials: int | None = None,
    timeout: float | None = None,
    trial_timeout: float | None = None,
    workers: int = 0,
    sampler: SamplerName | None = None,
    pruner: PrunerName | None = None,
    sampler_seed: int = 0,
    storage: str | None = None,
    warm_start: str | None = None,
    confirm_seeds: int = 5,
    device: str = "auto",
    threads: int = 0,
    data_root: Path | str | None = None,
    quiet: bool = False,
) -> StudyAnswer:
    """Run a study, or go on with it, as `python -m harness.study` does.

    The options are those of the command. Calls from several threads are served one after another.

    Args:
        study: the name of a file in `studies/`, or a study; one that is in no file needs a
            `study_name`. Its experiment may be defined in the cell of a notebook.

    Returns:
        The answer: the best trial or the front, confirmed on the test set.

    Raises:
        BadRequest: an option is wrong, or does not fit the declaration or the stored study.
        RunFailed: no trial was completed, too many failed, or the record or storage failed.
    """
    refuse_in_recorded_code(getattr(study, "experiment", None))
    file = study if isinstance(study, str) else ""
    declared = load_study(study) if isinstance(study, str) else study
    if not isinstance(declared, Study):
        raise BadRequest(f"study: expected the name of a study, or a Study, got {study!r}.")
    if not (file or study_name):
        raise BadRequest("study_name: a study that is in no file needs a name.")
    options: dict[str, Any] = {
        "study_name": study_name,
        "n_trials": n_trials,
        "timeout": timeout,
        "trial_timeout": trial_timeout,
        "workers": workers,
        "sampler": sampler,
        "pruner": pruner,
        "sampler_seed": sampler_seed,
        "storage": storage,
        "warm_start": warm_start,
        "confirm_seeds": confirm_seeds,
        "device": device,
        "threads": threads,
        "data_root": None if data_root is None else Path(data_root),
        "quiet": quiet,
    }
    settings = StudySettings(**options)
    given = {
        name: value for name, value in options.items() if value != getattr(StudySettings, name)
    }
    command = repeatable(run_arguments(file, given, command="study")) if file else ()
    request = settings.request(file, declared, declared.experiment, command)
    with _ONE_AT_A_TIME, closing(RecorderProcess()) as recorder:
        answer, _ = study_run.search_and_confirm(request, recorder, study_view(quiet))
    return answer


def _command(experiment: Experiment, settings: RunSettings) -> tuple[str, ...]:
    """The command line that does the same; that of the script, if the experiment is in one."""
    if experiment.outside_code():
        return shared_command()
    options: dict[str, Any] = {
        **experiment.changes(),
        **{
            name: getattr(settings, name)
            for name in (
                *("device", "threads", "matmul_precision", "data_root", "run_name"),
                *("start_from", "keep_best", "log_average"),
            )
            if getattr(settings, name) != getattr(RunSettings, name)
        },
        "no_figures": settings.no_figures,
        "tag": settings.tag,
    }
    defaults = {field.name: field.default for field in dataclasses.fields(experiment)}
    return repeatable(run_arguments(experiment.name, options, defaults))
