"""The checklist of reproducibility, filled in from what runs have recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.reporting.page import Commands, Item
from harness.tracking.schema import StoredRun

Tags = Mapping[str, str]
"""A run's tags, without their prefix `harness.`."""

NOTHING = "not recorded"


def own_tags(run: StoredRun) -> Tags:
    """The harness's tags of a run."""
    return {
        name.removeprefix("harness."): value
        for name, value in run.tags.items()
        if name.startswith("harness.")
    }


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


def counted(numbers: Mapping[str, int]) -> str:
    """Numbers of things in words, without those of which there are none.

    >>> counted({"completed": 3, "pruned": 0, "failed": 1})
    '3 completed, 1 failed'
    """
    return ", ".join(f"{n} {thing}" for thing, n in numbers.items() if n)


def data(sets: Iterable[tuple[str, str, int | None, str]]) -> Item:
    """Which images the runs saw, with the digests that tell whether others see the same.

    Args:
        sets: name, use, number of images (None where it is not known), SHA-256.
    """
    lines = dict.fromkeys(
        f"{name}, {use}: {'' if size is None else f'{size:,} images, '}SHA-256 {digest}"
        for name, use, size, digest in sets
    )
    return Item("Data", "\n".join(lines) or NOTHING, bool(lines))


def environment(runs: Sequence[Tags]) -> list[Item]:
    """Hardware, versions and code, each with all that the runs have recorded of it."""

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
    known = commits not in (NOTHING, "none")
    dirty = [tags for tags in runs if tags.get("git_dirty") == "true"]
    state = (
        "with uncommitted changes, which changes.diff among the artifacts of the (parent) run holds"
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
    ]


def again(commands: Iterable[tuple[Tags, str]]) -> Commands:
    """The lines that repeat it: commands in order, after the commit that each was given at."""
    lines, state = ["pip install -c constraints.txt -e ."], None
    for tags, command in commands:
        now = (tags.get("git_commit", "none"), tags.get("git_dirty") == "true")
        if now != state and now[0] != "none":
            lines.append(f"git checkout {now[0]}")
            if now[1]:
                lines.append("git apply changes.diff  # of the (parent) run's artifacts")
        state = now
        lines.append(command)
    return Commands(lines)
