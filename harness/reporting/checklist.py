"""The checklist of reproducibility, filled in from what runs have recorded."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.reporting.page import Commands, Item
from harness.tracking.record import DataRecord

Tags = Mapping[str, str]
"""A run's tags, without their prefix `harness.`."""

NOTHING = "not recorded"


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(4210)
    '1 h 10 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def each(values: Iterable[str | None]) -> str:
    """The different values, each once, in their order.

    >>> each(["cpu", "cuda", "cpu"])
    'cpu; cuda'
    """
    return "; ".join(dict.fromkeys(value for value in values if value)) or NOTHING


def data(records: Iterable[DataRecord]) -> Item:
    """Which images the runs saw, with the digests that tell whether others see the same."""
    sets = dict.fromkeys(
        f"{part.name}, {part.context}: {part.size:,} images, SHA-256 {part.digest}"
        for part in records
    )
    return Item("Data", "\n".join(sets) or NOTHING, bool(sets))


def environment(runs: Sequence[Tags], command: str) -> list[Item]:
    """Hardware, versions, code and command, each with all that the runs have recorded of it."""

    def recorded(*names: str) -> str:
        return each(
            ", ".join(f"{name} {tags[name]}" for name in names if tags.get(name)) for tags in runs
        )

    hardware = each(
        f"{tags['device']} ({tags['device_name']}), {tags['threads']} CPU threads of "
        f"{tags['processor']}"
        for tags in runs
        if tags.get("device")
    )
    commits = each(tags.get("git_commit") for tags in runs)
    known = commits not in (NOTHING, "none")
    dirty = [tags for tags in runs if tags.get("git_dirty") == "true"]
    state = (
        "with uncommitted changes, which changes.diff among the artifacts of the "
        "(parent) run holds"
        if dirty
        else "no uncommitted changes"
    )
    return [
        Item("Hardware", hardware, hardware != NOTHING),
        Item(
            "Versions",
            f"{recorded('python', 'torch', 'cuda', 'mlflow', 'optuna')}\n"
            "environment.txt among the artifacts of the (parent) run names every package",
        ),
        Item(
            "Code",
            f"commit {commits}, {state}" if known else "not in a git checkout",
            known and not dirty,
        ),
        Item(
            "Experiment's file",
            f"SHA-256 {each(tags.get('experiment_sha256') for tags in runs)}",
        ),
        Item("Command", command or NOTHING, bool(command)),
    ]


def again(tags: Tags, commands: Sequence[str]) -> Commands:
    """The lines that repeat it, from the commit to the commands themselves."""
    lines = []
    commit = tags.get("git_commit", "none")
    if commit != "none":
        lines.append(f"git checkout {commit}")
    if tags.get("git_dirty") == "true":
        lines.append("git apply changes.diff  # from the artifacts of the (parent) run")
    return Commands([*lines, "pip install -c constraints.txt -e .", *commands])


def run_command(experiment: str, fields: Mapping[str, Any], tags: Tags, *flags: str) -> str:
    """The command that trains one configuration, every field given.

    >>> run_command("baseline", {"seed": 0, "lr": 0.5}, {"threads": "1"}, "--repeats", "5")
    'python -m harness.run baseline --seed 0 --lr 0.5 --threads 1 --repeats 5'
    """
    words = ["python", "-m", "harness.run", experiment]
    for name, value in fields.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not False:
            words += [flag, str(value)]
    if threads := tags.get("threads"):
        words += ["--threads", threads]
    return shlex.join([*words, *flags])
