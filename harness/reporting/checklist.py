"""The reproducibility checklist, filled in from what runs have recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.reporting.page import Commands, Item
from harness.tracking.schema import StoredRun

Tags = Mapping[str, str]
"""The tags of a run, without their prefix `harness.`."""

NOTHING = "not recorded"


def own_tags(run: StoredRun) -> Tags:
    """The harness's tags of a run, without their prefix `harness.`."""
    return {
        name.removeprefix("harness."): value
        for name, value in run.tags.items()
        if name.startswith("harness.")
    }


def each(values: Iterable[str | None]) -> str:
    """The distinct values, in their order.

    >>> each(["cpu", "cuda", "cpu"])
    'cpu; cuda'
    """
    return "; ".join(dict.fromkeys(value for value in values if value)) or NOTHING


def counted(numbers: Mapping[str, int]) -> str:
    """Counts in words, without those that are zero.

    >>> counted({"completed": 3, "pruned": 0, "failed": 1})
    '3 completed, 1 failed'
    """
    return ", ".join(f"{n} {thing}" for thing, n in numbers.items() if n)


def data_item(parts: Iterable[tuple[str, str, int | None, str]]) -> Item:
    """The data that the runs used, with digests by which others can check that theirs is the same.

    Args:
        parts: name, use, number of examples (None if unknown), SHA-256.
    """
    lines = dict.fromkeys(
        f"{name}, {use}: {'' if size is None else f'{size:,} examples, '}SHA-256 {digest}"
        for name, use, size, digest in parts
    )
    return Item("Data", "\n".join(lines) or NOTHING, bool(lines))


def environment_items(runs: Sequence[Tags]) -> list[Item]:
    """Hardware, versions and code, each with every value that the runs have recorded."""

    def recorded(*names: str) -> str:
        return each(
            ", ".join(f"{name} {tags[name]}" for name in names if tags.get(name)) for tags in runs
        )

    hardware = each(
        f"{tags['device']}: {tags['device_name']}, {tags['threads']} threads"
        + ("" if tags["processor"] == tags["device_name"] else f" of {tags['processor']}")
        for tags in runs
        if tags.get("device")
    )
    commits = each(tags.get("git_commit") for tags in runs)
    states = {tags.get("git_state") for tags in runs}
    is_clean = commits not in (NOTHING, "none") and states == {"clean"}
    if "unknown" in states or commits == NOTHING:
        state = each(tags.get("git_reason") for tags in runs)
    elif is_clean:
        state = "no uncommitted changes"
    else:
        state = (
            "with uncommitted changes, kept as changes.diff among the artifacts of the (parent) "
            "run; changes.json lists them"
        )
    return [
        Item("Hardware", hardware, hardware != NOTHING),
        Item(
            "Versions",
            f"{recorded('python', 'torch', 'cuda', 'mlflow', 'optuna')}\n"
            "environment.txt among the artifacts of the (parent) run lists every package",
        ),
        Item(
            "Code",
            f"commit {commits}, {state}" if commits != NOTHING else state,
            is_clean,
        ),
        Item(
            "Experiment file",
            f"SHA-256 {each(tags.get('experiment_sha256') for tags in runs)}",
        ),
    ]


def repeat_commands(commands: Iterable[tuple[Tags, str]]) -> Commands:
    """The shell lines that repeat runs: each command, after a checkout of its run's commit."""
    lines, state = ["pip install -c constraints.txt -e ."], None
    for tags, command in commands:
        now = (tags.get("git_commit", "none"), tags.get("git_state") == "dirty")
        if now != state and now[0] != "none":
            lines.append(f"git checkout {now[0]}")
            if now[1]:
                lines.append("git apply changes.diff  # an artifact of the (parent) run")
        state = now
        lines.append(command)
    return Commands(lines)
