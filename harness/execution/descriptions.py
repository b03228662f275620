"""Descriptions of runs and groups in Markdown: what was trained, and what came out."""

from __future__ import annotations

from collections.abc import Sequence

from harness.base.command_line import command_text
from harness.base.formatting import metric_text
from harness.base.metric_names import AVERAGE, averages, quantities
from harness.base.outside_code import verify_command
from harness.base.statistics import Summary
from harness.execution.callbacks import RecordRun
from harness.execution.events import Ending
from harness.execution.steadiness import jump, jump_in_words
from harness.tracking.schema import ENDED
from harness.training.experiment import Experiment


def describe_run(run: RecordRun, ending: Ending) -> str:
    """A run that has nothing left to train; empty for any other."""
    if ending.outcome not in ENDED or not run.begun_event:
        return ""
    experiment, machine = run.experiment, run.begun_event.machine
    sizes = {part.context: part.size for part in run.begun_event.data}
    metrics = run.history[-1].metrics if run.history else {}
    measured = quantities(metrics)
    lines = [
        f"**{experiment}** on {run.begun_event.data[0].name} "
        f"({sizes['training']:,} training examples), {machine['device']}, "
        f"{machine['threads']} CPU threads: **{ending.outcome}** after "
        f"{len(run.history)} of {experiment.num_epochs} epochs.",
        "",
        f"| set | {' | '.join(measured)} | examples |",
        f"| --- |{' --- |' * len(measured)} --- |",
    ]
    for context, size in sizes.items():
        part = "train" if context == "training" else context
        rows = {part: f"{part}/"}
        if part != "train" and averages(metrics):
            rows[f"{part}, averaged weights"] = f"{part}/{AVERAGE}"
        for words, prefix in rows.items():
            if f"{prefix}loss" in metrics:
                values = [metric_text(metrics[prefix + name]) for name in measured]
                lines.append(f"| {words} | {' | '.join(values)} | {size:,} |")
    if ending.weights and run.specification.log_average:
        lines += ["", "The model has the averaged weights."]
    if ending.outcome == "completed":
        deviation = jump(experiment, run.history, run.begun_event.data)
        lines += ["", f"Note: {jump_in_words(experiment, deviation)}."] if deviation else []
    command = repeating(run, run.specification.command)
    return "\n".join([*lines, "", "n = 1 seed. Repeat it with:", "", f"    {command}"])


def repeating(run: RecordRun, command: Sequence[str]) -> str:
    """The command that trains the same again; by the recorded code if that is in no file."""
    code = run.experiment.outside_code()
    if not code:
        return command_text(command)
    return f"# {code.sentence()}" if code.missing else verify_command(run.run_id)


def describe_group(
    experiment: Experiment,
    seeds: Sequence[int],
    device: str,
    summaries: dict[str, Summary],
    command: tuple[str, ...],
) -> str:
    """A group of seeds; `experiment` is the configuration that they share."""
    return "\n".join(
        [
            f"**{experiment}**, seeds {seeds[0]} to {seeds[-1]}, on {device}:",
            "",
            *(f"- {name}: {summary}" for name, summary in summaries.items()),
            "",
            "Repeat it with:",
            "",
            f"    {command_text(command)}",
        ]
    )
