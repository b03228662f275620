"""An experiment, run as its flags say: from the command line and from Python."""

from __future__ import annotations

import dataclasses

from harness.base.errors import BadRequest
from harness.base.formatting import number_of
from harness.cli.output import print_text
from harness.cli.resume_flags import ContinueFlags, ResumeFlags
from harness.cli.run_flags import RunSettings
from harness.cli.run_progress import epochs_view, summary
from harness.execution.driver import Callback
from harness.execution.events import Begun
from harness.execution.launch import NO_WEIGHTS, GroupResult, RunResult, repeat, run
from harness.execution.preparation import DataSource
from harness.execution.recovery import recover
from harness.execution.resume import resume, train_further
from harness.execution.trained_network import fitting, read_weights
from harness.execution.training_group import LocalGroup, TrainingGroup
from harness.tracking.messages import OpenStore, Recorder
from harness.tracking.reader import open_reader
from harness.tracking.schema import StoredRun
from harness.tracking.selection import trained_run
from harness.training.device import describe
from harness.training.experiment import Experiment


def run_as_asked(
    experiment: Experiment,
    settings: RunSettings,
    recorder: Recorder,
    command: tuple[str, ...] | None = None,
) -> RunResult | GroupResult:
    """Run an experiment, or a group of seeds of it.

    Args:
        command: the command line that repeats it; by default that of this process.

    Raises:
        BadRequest: a setting does not fit the machine or the data.
        DataUnavailable: the data are unavailable, and no fallback was allowed.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    execution = settings.execution()
    device = execution.apply()
    # The last of the seeds may be out of bounds.
    dataclasses.replace(experiment, seed=experiment.seed + settings.repeats - 1)
    if settings.keep_best and not experiment.validation_size:
        raise BadRequest(
            "keep_best: it needs validation examples, and validation_size is 0. Set some aside: "
            "--validation-size 10000"
        )
    if settings.log_average and experiment.average_weights == "off":
        raise BadRequest(
            "log_average: there are no averaged weights. Average them: --average-weights last-epoch"
        )
    if settings.log_average and settings.keep_best:
        raise BadRequest(
            "log_average: only one model is logged, and keep_best asks for that of the best epoch."
        )
    data = DataSource(settings.data_root)
    prepared = data.prepare(experiment, fallback=settings.fallback)
    experiment = prepared.experiment
    weights, specification = NO_WEIGHTS, settings.specification()
    if settings.start_from:
        reader = open_reader()
        stored = trained_run(settings.start_from, reader, "start_from")
        weights, others = fitting(experiment, read_weights(stored, reader), stored.run_id)
        specification = dataclasses.replace(specification, start_from=stored.run_id)
        if not settings.quiet:
            print(f"starting from {number_of(len(weights), 'tensor')} of {stored.run_id[:8]}")
            for phrase in others:
                print_text(f"  starts anew: {phrase}")
    code = recorder.send(OpenStore())
    recover(recorder)
    if command is not None:
        specification = dataclasses.replace(specification, command=command)
    if prepared.fallback_from:
        specification = dataclasses.replace(
            specification, tags={"fallback_from": prepared.fallback_from}
        )
        if not settings.quiet:
            print(
                f"{prepared.fallback_from} is unavailable: training on {experiment.dataset} "
                "instead, as --fallback allows."
            )
    group = LocalGroup(data, execution, device)
    view = epochs_view(group, experiment.num_epochs, quiet=settings.quiet)
    result: RunResult | GroupResult
    if settings.repeats == 1:
        result = run(experiment, group, execution, recorder, specification, view, weights=weights)
    else:
        seeds = range(experiment.seed, experiment.seed + settings.repeats)
        begun = Begun(describe(device), prepared.data_records())
        result = repeat(
            *(experiment, seeds, group, execution, recorder, specification, begun, view),
            weights=weights,
        )
    if code and not settings.quiet:
        print(code)
    if (outside := experiment.outside_code()) and not settings.quiet:
        print_text(outside.sentence())
    return result


def resume_as_asked(
    stored: StoredRun, settings: ResumeFlags | ContinueFlags, recorder: Recorder
) -> RunResult:
    """Go on with a run, or train a completed one further.

    Raises:
        BadRequest: it cannot go on, or something has changed since it began.
        RunFailed, Interrupted: as `harness.execution.launch.run` does.
    """
    recorder.send(OpenStore())
    recover(recorder)
    reader = open_reader()
    # What the recovery has closed may go on now.
    stored = reader.run(stored.run_id)
    num_epochs = stored.fields.get("num_epochs", 0)
    if isinstance(settings, ContinueFlags):
        num_epochs = settings.num_epochs

    def view(group: TrainingGroup) -> Callback:
        return epochs_view(group, num_epochs, quiet=settings.quiet)

    allow, root, runs_code = settings.allow, settings.data_root, settings.run_recorded_code
    if isinstance(settings, ContinueFlags):
        return train_further(
            *(stored, num_epochs, reader, recorder, view),
            allow=allow,
            root=root,
            run_recorded_code=runs_code,
        )
    return resume(
        *(stored, reader, recorder, view),
        allow=allow,
        root=root,
        take_over=settings.take_over,
        run_recorded_code=runs_code,
    )


def report_run(result: RunResult | GroupResult) -> int:
    """Print how a run or group has ended; return the exit status."""
    print_text(f"{summary(result)}\nrun {result.run_id}\nsee it with: python -m harness.ui")
    return 0 if result.has_learned else 1
