"""The reproducibility checklist, filled in from what runs have recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from harness.base import project
from harness.base.outside_code import verify_command
from harness.reporting.page import Commands, Item
from harness.tracking.schema import OUTSIDE, SOURCE_FILE, StoredRun

Tags = Mapping[str, str]
"""The tags of a run, without their prefix `harness.`."""

NOTHING = "not recorded"

_PLACE = re.compile(r"~?[/\\]|\.\.[/\\]|[A-Za-z]:[/\\]|sqlite:////|(?:postgresql|mysql)[\w+]*://")
"""How a path or the address of a database begins that other machines do not have."""


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
    states = {tags.get("project_state") or tags.get("git_state") for tags in runs}
    is_clean = commits not in (NOTHING, "none") and states == {"clean"}
    outside = each(_outside(tags) for tags in runs if tags.get("code_origin"))
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
            (f"commit {commits}, {state}" if commits != NOTHING else state)
            + (f"\n{outside}" if outside != NOTHING else ""),
            is_clean and outside == NOTHING,
        ),
        Item(
            "Experiment file",
            f"SHA-256 {each(tags.get('experiment_sha256') for tags in runs)}",
        ),
    ]


def _outside(tags: Tags) -> str:
    place = "the project" if tags.get("git_state") == OUTSIDE else "experiments/"
    missing = tags.get("code_missing")
    kept = f"not recorded: {missing}" if missing else f"{SOURCE_FILE} among the artifacts has it"
    return f"the experiment is in no file of {place} but in {tags['code_origin']} ({kept})"


def repeat_commands(commands: Iterable[tuple[StoredRun, str]]) -> Commands:
    """The shell lines that repeat runs: the code as it was, its packages, then each command.

    They begin in the project that holds the record, and go on in a copy of the repository beside
    it, so that the project stays as it is.
    """
    runs = list(commands)
    outside = [(run, command) for run, command in runs if run.tag("code_origin")]
    runs = [pair for pair in runs if pair not in outside]
    known = [(_version(run), command) for run, command in runs]
    versions = dict.fromkeys(version for version, _ in known)
    lines = [
        line
        for run, _ in outside
        for line in (f"# the code that was recorded with run {run.run_id}", _verified(run))
    ]
    lines += [
        line
        for _, run_id in versions
        if run_id
        for line in _download("the uncommitted changes", run_id, "changes.diff")
    ]
    install = "pip install -c constraints.txt -e ."
    if runs and not (project.root() / "constraints.txt").is_file():
        # A project of one's own has experiments and studies; the harness is a package like others.
        run_id = runs[-1][0].parent or runs[-1][0].run_id
        lines += _download("the packages", run_id, "environment.txt")
        install = f"pip install -r ../{_folder(run_id)}/environment.txt"
    if any(commit for commit, _ in versions):
        lines += [
            "# REPOSITORY: the address of the code",
            "git clone REPOSITORY ../repeated && cd ../repeated",
            "python -m venv .venv && . .venv/bin/activate",
        ]
    present = None
    for version, command in known:
        commit, changes = version
        if version != present:
            if present and present[1]:
                lines.append("git stash --include-untracked --quiet")
            if commit:
                lines.append(f"git checkout --quiet {commit}")
            if changes:
                lines.append(f"git apply ../{_folder(changes)}/changes.diff")
            lines.append(install)
        present = version
        lines += _for_any_machine(command)
    return Commands(lines)


def _verified(run: StoredRun) -> str:
    missing = run.tag("code_missing")
    return f"# is not there: {missing}" if missing else verify_command(run.run_id)


def _version(run: StoredRun) -> tuple[str, str]:
    """A run's commit, and the id of the run that keeps its uncommitted changes; "" for none."""
    commit = run.tag("git_commit") or "none"
    if commit == "none":
        return "", ""
    return commit, (run.parent or run.run_id) if run.project_state == "dirty" else ""


def _download(what: str, run_id: str, name: str) -> list[str]:
    store = "${MLFLOW_TRACKING_URI:-sqlite:///mlruns/mlflow.db}"
    return [
        f"# {what}, an artifact of run {run_id}",
        f"MLFLOW_TRACKING_URI={store} mlflow artifacts download --run-id {run_id} "
        f"--artifact-path {name} --dst-path ../{_folder(run_id)}",
    ]


def _folder(run_id: str) -> str:
    return f"run-{run_id[:8]}"


def _for_any_machine(command: str) -> list[str]:
    """A command in which names stand for the paths and databases of one machine, and a comment.

    >>> _for_any_machine("python -m harness.run baseline --data-root /data/images --lr 0.1")
    ['# DATA_ROOT: your own', 'python -m harness.run baseline --data-root DATA_ROOT --lr 0.1']
    """
    try:
        words = shlex.split(command)
    except ValueError:  # not a command of a shell
        return [command]
    names = []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if _PLACE.match(value):
            option = flag or words[place - 1]
            names.append(option[2:].replace("-", "_").upper() if option[:2] == "--" else "PATH")
            words[place] = f"{flag}{equals}{names[-1]}"
    if not names:
        return [command]
    return [f"# {', '.join(dict.fromkeys(names))}: your own", shlex.join(words)]
