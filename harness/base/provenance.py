"""Where a run comes from: commit, uncommitted changes, packages. No host, no user."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.base import project
from harness.base.privacy import mask

LONGEST_DIFF = 1_000_000
"""Characters of the recorded changes. A longer patch is cut off, with a note at its end."""


@dataclass(frozen=True)
class SourceState:
    """The state of the project's source.

    Attributes:
        commit: Full hash, or "" outside a git checkout.
        changes: A patch from that commit to the project's files, untracked ones included; "" if
            nothing changed. What lies beside the project in a larger checkout is left out.
    """

    commit: str
    changes: str


def source() -> SourceState:
    """Read the commit and the uncommitted changes, without touching the index."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return SourceState("", "")
    if not _git("status", "--porcelain", "--untracked-files=normal", "--", "."):
        return SourceState(commit.strip(), "")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        real_index = project.root() / _git("rev-parse", "--git-path", "index").strip()
        if real_index.is_file():
            shutil.copyfile(real_index, index)
        _git("add", "--all", "--intent-to-add", "--", ".", index=index)
        # The user's git settings (colours, an external diff program) would spoil the patch.
        plain = ("--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/")
        changes = _git("diff", *plain, "--relative", "HEAD", index=index)
    if len(changes) > LONGEST_DIFF:
        changes = f"{changes[:LONGEST_DIFF]}\n[cut off: {len(changes)} characters in all]\n"
    return SourceState(commit.strip(), mask(changes))


def files_changed_since(commit: str) -> list[str]:
    """Return the Python files that differ from a commit, untracked ones included.

    Their paths are relative to the root. Empty if the commit is unknown.
    """
    if not commit or commit == "none":
        return []
    changed = _git("diff", "--name-only", "--relative", commit, "--", "*.py").splitlines()
    return changed + _git("ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines()


def environment() -> str:
    """Return every installed package with its version, one for each line, sorted."""
    packages = {
        f"{package.name}=={package.version}" for package in importlib.metadata.distributions()
    }
    return "\n".join(sorted(packages, key=str.lower)) + "\n"


def version(package: str) -> str:
    """Return the installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _git(*arguments: str, index: Path | None = None) -> str:
    """Return what git prints, or "" if it fails or is missing."""
    extra = {"GIT_INDEX_FILE": str(index)} if index else {}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=project.root(),
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"} | extra,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout.decode(errors="replace")  # text mode would turn CRLF into LF
    except (OSError, subprocess.SubprocessError):
        return ""
