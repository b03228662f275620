"""An experiment run from Python: `harness.run_experiment(Baseline(lr=0.05))`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from harness.base.command_line import run_arguments
from harness.base.errors import BadRequest
from harness.cli.experiment_run import run_as_asked
from harness.cli.run_flags import RunSettings
from harness.execution.launch import RunResult
from harness.tracking.recorder_process import RecorderProcess
from harness.training.experiment import Experiment


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
    quiet: bool = True,
) -> RunResult:
    """Train an experiment with the whole record, as `python -m harness.run` does.

    The options are those of the command; `threads` and `matmul_precision` stay set in this process.

    Args:
        tags: tags for the run, by their names.
        quiet: print no epochs.

    Returns:
        The run's id, outcome (`diverged`, maybe), epochs and last metrics. It is on disk by then.

    Raises:
        BadRequest: an option is wrong, or the data set is too small for the experiment.
        DataUnavailable: the data set cannot be had.
        RunFailed: the training or its record went wrong; the run is recorded as failed.
    """
    if not isinstance(experiment, Experiment):
        raise BadRequest(f"experiment: {experiment!r} is none; make one: Baseline(lr=0.05)")
    settings = RunSettings(
        device=device,
        threads=threads,
        matmul_precision=matmul_precision,
        data_root=None if data_root is None else Path(data_root),
        run_name=run_name,
        tag=tuple(f"{name}={value}" for name, value in (tags or {}).items()),
        no_figures=not figures,
        quiet=quiet,
    )
    # The recorder's process imports MLflow while this one opens the data.
    with closing(RecorderProcess()) as recorder:
        result = run_as_asked(experiment, settings, recorder, _command(experiment, settings))
    assert isinstance(result, RunResult)
    return result


def _command(experiment: Experiment, settings: RunSettings) -> tuple[str, ...]:
    """The command line that does the same; none for an experiment that is in no file of its own."""
    package, _, name = type(experiment).__module__.rpartition(".")
    if package != "experiments":
        return ()
    options: dict[str, Any] = {
        **experiment.changes(),
        **{
            name: getattr(settings, name)
            for name in ("device", "threads", "matmul_precision", "data_root", "run_name")
            if getattr(settings, name) != getattr(RunSettings, name)
        },
        "no_figures": settings.no_figures,
        "tag": settings.tag,
    }
    defaults = {field.name: field.default for field in dataclasses.fields(experiment)}
    return run_arguments(name, options, defaults)
