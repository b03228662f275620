"""Where a run comes from: commit, uncommitted changes, packages. No host, no user."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.base.privacy import mask
from harness.base.project import ROOT

LONGEST_DIFF = 1_000_000
"""Characters of uncommitted changes that are recorded; the rest is cut off, and said so."""


@dataclass(frozen=True)
class SourceState:
    """The state of the project's source.

    Attributes:
        commit: full hash, or "" outside a git checkout.
        changes: the difference between that commit and the files, untracked ones included, as a
            patch; "" where there is none.
    """

    commit: str
    changes: str


def source() -> SourceState:
    """Read the commit and the uncommitted changes; the index is left as it is."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return SourceState("", "")
    if not _git("status", "--porcelain", "--untracked-files=normal"):
        return SourceState(commit.strip(), "")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        real_index = ROOT / _git("rev-parse", "--git-path", "index").strip()
        if real_index.is_file():
            shutil.copyfile(real_index, index)
        _git("add", "--all", "--intent-to-add", index=index)
        # The user's own settings (colours, a program that shows differences) make it no patch.
        plain = ("--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/")
        changes = _git("diff", *plain, "HEAD", index=index)
    if len(changes) > LONGEST_DIFF:
        changes = f"{changes[:LONGEST_DIFF]}\n[cut off: {len(changes)} characters in all]\n"
    return SourceState(commit.strip(), mask(changes))


def files_changed_since(commit: str) -> list[str]:
    """Python files that are not as in a commit, the uncommitted ones included, from the root.

    Empty where nothing is known of that commit.
    """
    if not commit or commit == "none":
        return []
    changed = _git("diff", "--name-only", commit, "--", "*.py").splitlines()
    return changed + _git("ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines()


def environment() -> str:
    """Every installed package with its version, one a line, sorted."""
    packages = {
        f"{package.name}=={package.version}" for package in importlib.metadata.distributions()
    }
    return "\n".join(sorted(packages, key=str.lower)) + "\n"


def version(package: str) -> str:
    """The installed version of a package, read without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _git(*arguments: str, index: Path | None = None) -> str:
    """What git prints, or "" where it fails or is missing."""
    extra = {"GIT_INDEX_FILE": str(index)} if index else {}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"} | extra,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout.decode(errors="replace")  # not as text, which would make CRLF LF
    except (OSError, subprocess.SubprocessError):
        return ""
