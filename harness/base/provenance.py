"""Where a run comes from: commit, uncommitted changes, packages. No host, no user, no secret."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness.base import project
from harness.base.formatting import number_of
from harness.base.privacy import mask, secret_in
from harness.base.processes import child_process

GitState = Literal["clean", "dirty", "unknown"]

SOURCES = ("experiments", "studies", "harness")
"""Folders of the project whose Python files decide what a run computes."""

LARGEST_PATCH = 1_000_000
"""Bytes of the recorded patch, the changes of sources not counted: these are always whole."""

SECONDS = 60
"""How long git may take for an answer."""

DELETED = "deleted"

PACKAGE_FOLDERS = {"site-packages", "dist-packages"}
"""Where packages are installed, also in a virtual environment within the project."""


@dataclass(frozen=True)
class SourceState:
    """The state of the project's source.

    Attributes:
        commit: full hash, or "" if there is none.
        state: whether the project is as in the commit, as `git status` says.
        reason: why the state is unknown.
        patch: from that commit to the project's changed files; a new file is in it only if it is a
            source.
        files: SHA-256 of each changed file by its path, or `deleted`. Of new files, the sources.
        left_out: changed files that the patch lacks, and why.
        others: new files that are no sources.
    """

    commit: str = ""
    state: GitState = "unknown"
    reason: str = ""
    patch: bytes = b""
    files: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    others: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The commit in 8 letters, with `+` if there are changes and `?` if that is unknown."""
        return commit_name(self.commit, self.state)

    def sentence(self) -> str:
        """What the user should know of it; "" if all is as in the commit."""
        if self.state == "clean":
            return ""
        if self.state == "unknown":
            return f"code: {self.name}, what has changed is unknown: {self.reason}"
        lacking = "".join(
            f"\n  {path} is not in the record: {why}" for path, why in self.left_out.items()
        )
        changes = f"changes in {number_of(len(self.files), 'file')}" if self.files else "new files"
        return f"code: {self.name}, with {changes}{lacking}"

    def summary(self) -> str:
        """What has changed, as JSON; for a file beside the patch."""
        content: dict[str, Any] = {
            "commit": self.commit,
            "state": self.state,
            "reason": self.reason,
            "files": dict(self.files),
            "left_out_of_the_patch": dict(self.left_out),
            "new_files_not_recorded": list(self.others),
        }
        return json.dumps({name: value for name, value in content.items() if value}, indent=2)


def commit_name(commit: str | None, state: str | None) -> str:
    """A commit in 8 letters, with the state of the files that were there.

    >>> commit_name("160dc945f0", "dirty"), commit_name("160dc945f0", "clean")
    ('160dc945+', '160dc945')
    """
    if not commit or commit == "none":
        return "no commit"
    return commit[:8] + {"clean": "", "dirty": "+"}.get(state or "", "?")


class _GitFailed(Exception):
    """Git is missing, has failed, or has taken too long; the message says so in one line."""


def source(modules: Iterable[str] = ()) -> SourceState:
    """Read the commit and the uncommitted changes, without touching the index.

    Args:
        modules: further files of the project that the run has imported, by their path; a new one
            counts as a source.
    """
    commit = ""
    try:
        if not _git("ls-files", "-z", "--", "."):
            return SourceState(reason="the project is in no git repository")
        commit = _git("rev-parse", "--verify", "HEAD").decode().strip()
        if not _git("status", "--porcelain", "--untracked-files=normal", "-z", "--", *_OWN):
            return SourceState(commit, "clean")
        return _changed(commit, list(modules))
    except _GitFailed as failure:
        return SourceState(commit, reason=str(failure))


def files_changed_since(commit: str, recorded: Mapping[str, str]) -> list[str]:
    """The Python files that are not as a run has seen them, by their paths.

    Args:
        commit: that of the run.
        recorded: the files that had changed since that commit when the run began; see
            `SourceState.files`.

    Raises:
        ValueError: it cannot be told. The message says why.
    """
    try:
        now = _digests(commit, new_sources())
    except _GitFailed as failure:
        raise ValueError(str(failure)) from None
    return [
        path
        for path in sorted(recorded.keys() | now.keys())
        if path.endswith(".py") and recorded.get(path) != now.get(path)
    ]


def new_sources(modules: Iterable[str] = ()) -> list[str]:
    """The untracked Python files of the project that decide what a run computes."""
    new = _names("ls-files", "--others", "--exclude-standard", "--", *_OWN)
    chosen = set(modules)
    return [
        path
        for path in new
        if path in chosen or (path.endswith(".py") and path.split("/")[0] in SOURCES)
    ]


def _changed(commit: str, modules: Sequence[str]) -> SourceState:
    new = new_sources(modules)
    everything_new = _names(
        "ls-files", "--others", "--exclude-standard", "--directory", "--", *_OWN
    )
    parts = _patches(new)
    left_out: dict[str, str] = {}
    patch: list[bytes] = []
    others_size = 0
    is_source = {path: _is_source(path) or path in new for path in parts}
    # Sources come first: nothing else can push them out.
    for path in sorted(parts, key=lambda path: not is_source[path]):
        content = parts[path]
        file = project.root() / path
        kept = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
        if secret := secret_in(content) or secret_in(kept):
            left_out[path] = f"it looks as if it held {secret}"
        elif not is_source[path] and others_size + len(content) > LARGEST_PATCH:
            left_out[path] = f"its change has {len(content):,} bytes"
        else:
            others_size += 0 if is_source[path] else len(content)
            patch.append(content)
    return SourceState(
        commit,
        "dirty",
        patch=b"".join(patch),
        files=_digests("HEAD", new),
        left_out=left_out,
        others=[path for path in everything_new if path not in new],
    )


def _patches(new: Sequence[str]) -> dict[str, bytes]:
    """The patch of each changed file, the given new ones included, by its path."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        real_index = project.root() / _git("rev-parse", "--git-path", "index").decode().strip()
        if real_index.is_file():
            shutil.copyfile(real_index, index)
        if new:
            _git("add", "--intent-to-add", "--", *map(_literal, new), index=index)
        # The user's git settings (colours, an external diff program) would spoil the patch.
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--relative")
        names = _names("diff", "--name-only", *plain, "HEAD", "--", *_OWN, index=index)
        prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
        whole = _git(
            "diff", "--binary", "--full-index", *plain, *prefixes, "HEAD", "--", *_OWN, index=index
        )
    # No line of a file begins like this: in a patch, each has a sign before it.
    parts = re.split(rb"(?m)^(?=diff --git )", whole)[1:]
    if len(parts) != len(names):
        raise _GitFailed(f"git names {len(names)} changed files and shows {len(parts)}")
    return dict(zip(names, parts, strict=True))


def _digests(commit: str, new: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file that differs from a commit, and of new ones, by their paths."""
    plain = ("--no-renames", "--no-ext-diff", "--relative")
    changed = _names("diff", "--name-only", *plain, commit, "--", *_OWN)
    return {path: _digest(project.root() / path) for path in (*changed, *new)}


def _digest(file: Path) -> str:
    if file.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(file))).hexdigest()
    if not file.is_file():
        return DELETED
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _is_source(path: str) -> bool:
    return path.endswith(".py") and path.split("/")[0] in SOURCES


_OWN = (".", ":(exclude,literal)mlruns")
"""The files of the project; what is recorded lies in mlruns."""


def _literal(path: str) -> str:
    return f":(literal){path}"


def _names(*arguments: str, index: Path | None = None) -> list[str]:
    """The paths that git prints, separated by null bytes."""
    command, *rest = arguments
    printed = _git(command, "-z", *rest, index=index)
    return [os.fsdecode(name) for name in printed.split(b"\0") if name]


def _git(*arguments: str, index: Path | None = None, root: Path | None = None) -> bytes:
    """What git prints about this project, or about another folder.

    Raises:
        _GitFailed: it is missing, has failed or has taken too long.
    """
    # A hook's variables would lead git to another repository.
    inherited = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    extra = {"GIT_INDEX_FILE": str(index)} if index else {}
    try:
        with child_process(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=root or project.root(),
            env=inherited | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            output, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise _GitFailed(f"git {arguments[0]} took more than {SECONDS} s") from None
    except OSError as error:
        raise _GitFailed(f"git cannot be run ({error.strerror})") from None
    if not process.returncode:
        return output
    lines = mask(errors.decode(errors="replace")).strip().splitlines()
    said = lines[0].removeprefix("fatal: ") if lines else f"status {process.returncode}"
    if said.startswith("not a git repository"):
        said = "the project is in no git repository"
    elif "Needed a single revision" in said:
        said = "there is no commit yet"
    raise _GitFailed(said)


def imported_files() -> tuple[str, ...]:
    """The files of the project, by their path, that this process has imported as modules."""
    root = project.root()
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not PACKAGE_FOLDERS & set(Path(file).parts):
            path = Path(file)
            if path.is_relative_to(root):
                found.add(path.relative_to(root).as_posix())
    return tuple(sorted(found))


def environment() -> str:
    """Every installed package with its version, one for each line, sorted.

    One that was installed from a repository, a file or a folder has its origin instead, as PEP 610
    records it, with the commit and without credentials.
    """
    packages = {_package(package) for package in importlib.metadata.distributions()}
    return "\n".join(sorted(packages, key=str.lower)) + "\n"


def _package(package: importlib.metadata.Distribution) -> str:
    known = f"{package.name}=={package.version}"
    try:
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        url = mask(str(origin.get("url", "")))
        if vcs := origin.get("vcs_info"):
            return f"{package.name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
        if archive := origin.get("archive_info"):
            digests = [f"#{name}={value}" for name, value in archive.get("hashes", {}).items()]
            return f"{package.name} @ {url.rpartition('/')[2]}{''.join(digests[:1])}"
        if "dir_info" not in origin:
            return known
        folder = Path(url2pathname(urlsplit(url).path))
        kind = "editable" if origin["dir_info"].get("editable") else "installed"
        return f"{known}  # {kind} from a folder, {_state_of(folder)}"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return known  # the file is damaged


def _state_of(folder: Path) -> str:
    try:
        if not _git("ls-files", "-z", "--", ".", root=folder):
            return "in no git repository"
        commit = _git("rev-parse", "--verify", "HEAD", root=folder).decode().strip()
        changed = _git("status", "--porcelain", "-z", "--", ".", root=folder)
        return f"commit {commit}{' with changes' if changed else ''}"
    except _GitFailed as failure:
        return str(failure)


def version(package: str) -> str:
    """Return the installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
