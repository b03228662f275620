"""A store that may only be read, such as another person's: reading works, writing is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Checkout, Ended, Recorded, bound_by_file_modes, free_port

from harness.base.ownership import Owner


def with_log(database: Path) -> None:
    """As processes leave it that end without closing it."""
    with contextlib.closing(sqlite3.connect(database)) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        copies = {}
        with holder:
            holder.execute("CREATE TABLE of_the_log (number INTEGER)")
        for end in ("", "-wal", "-shm"):
            copies[end] = Path(f"{database}{end}").read_bytes()
    for end, content in copies.items():
        Path(f"{database}{end}").write_bytes(content)


def at_rest(database: Path) -> None:
    """As the last one leaves it that closes it: a log, which is empty, has no file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert not Path(f"{database}-wal").exists()
    assert not Path(f"{database}-shm").exists()


def with_rollback_journal(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)


KINDS: dict[str, Callable[[Path], None]] = {
    "with its log": with_log,
    "at rest": at_rest,
    "with a rollback journal": with_rollback_journal,
}


@dataclasses.dataclass(frozen=True)
class ReadOnly(Checkout):
    """A checkout whose store may not be written by the commands that are run there."""

    cache: Path

    def command(self, module: str, *arguments: str, **options: object) -> Ended:
        ended = subprocess.run(
            [*bound_by_file_modes(), sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment(HOME=str(self.cache), TMPDIR=str(self.cache)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr, 0.0)

    def everything(self) -> dict[str, bytes | None]:
        """Everything in the store, files with their content."""
        store = self.root / "mlruns"
        return {
            str(path.relative_to(store)): path.read_bytes() if path.is_file() else None
            for path in sorted(store.rglob("*"))
        }


@pytest.fixture
def read_only(
    worked: Recorded, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[ReadOnly, str]]:
    """A store of one of the kinds, by default with its log, and its latest run."""
    checkout, ended = worked
    root = Path(shutil.copytree(checkout.root, tmp_path / "checkout"))
    store = root / "mlruns"
    leave = KINDS[getattr(request, "param", "with its log")]
    for name in ("mlflow.db", "optuna.db"):
        leave(store / name)
    # What a process that has died has left behind, and nobody here may put in order.
    owner = dataclasses.replace(Owner.current(), boot="another", started="0")
    address = f"sqlite:///{store / 'mlflow.db'}"
    work = {"store": hashlib.sha256(address.encode()).hexdigest()[:16]}
    left = store / "processes" / "left.json"
    left.parent.mkdir(exist_ok=True)
    left.write_text(json.dumps({"owner": str(owner), "work": work}))
    modes = {path: path.stat().st_mode for path in (store, *store.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o7555)
    cache = tmp_path / "cache"
    cache.mkdir()
    try:
        yield ReadOnly(root, cache), ended.run_id
    finally:
        for path, mode in modes.items():
            with contextlib.suppress(FileNotFoundError):
                path.chmod(mode)


@pytest.mark.parametrize("read_only", KINDS, indirect=True)
def test_what_only_reads_works_and_changes_nothing(
    read_only: tuple[ReadOnly, str], tmp_path: Path
) -> None:
    checkout, run_id = read_only
    before = checkout.everything()
    for module, *words in (
        ("harness.compare", "--experiment", "baseline"),
        ("harness.compare", "--study", "joint_search", "--filter", "metrics.`test/loss` > 0"),
        ("harness.sync",),
    ):
        ended = checkout.command(module, *words)
        assert (ended.status, ended.errors) == (0, ""), (words, ended)
    for name in ("baseline", "joint_search"):
        page = tmp_path / f"{name}.html"
        ended = checkout.command("harness.report", name, "--out", str(page))
        assert (ended.status, ended.errors) == (0, ""), ended
        assert ended.output.startswith(f"{page}: the report of ")
        assert ("keeps no copy: the store may only be read." in ended.output) == (
            name == "joint_search"
        )
        assert run_id[:8] in page.read_text() or name == "joint_search"
    assert checkout.everything() == before


def test_a_run_is_verified_without_a_record(read_only: tuple[ReadOnly, str]) -> None:
    checkout, run_id = read_only
    before = checkout.everything()
    ended = checkout.command("harness.verify", run_id)
    assert (ended.status, ended.errors) == (0, ""), ended
    assert "identical: all " in ended.output
    assert ended.output.splitlines()[-2:] == [
        "The repetition is not recorded: the store may only be read.",
        f"verifies {run_id}",
    ]
    assert checkout.everything() == before


def test_what_must_write_says_so_in_one_line(read_only: tuple[ReadOnly, str]) -> None:
    checkout, run_id = read_only
    before = checkout.everything()
    for status, module, *words in (
        (1, "harness.run", "baseline", "--dataset", "digits"),
        (1, "harness.run", "--continue", run_id, "--num-epochs", "3"),
        (1, "harness.study", "lr_search", "--dataset", "digits"),
        (2, "harness.ui", "--no-browser", "--allow-uploads"),
    ):
        ended = checkout.command(str(module), *words)
        assert (ended.status, ended.output) == (status, ""), (words, ended)
        (line,) = ended.errors.splitlines()
        assert line.startswith("error: ")
        assert str(checkout.root / "mlruns") in line
        assert "may only be read" in line
    assert checkout.everything() == before


def test_a_run_that_must_be_closed_is_left_to_others(read_only: tuple[ReadOnly, str]) -> None:
    checkout, run_id = read_only
    owner = dataclasses.replace(Owner.current(), boot="another", started="0")
    with contextlib.closing(sqlite3.connect(checkout.store)) as connection, connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", [run_id])
        connection.execute(
            "UPDATE tags SET value = ? WHERE key = 'harness.owner' AND run_uuid = ?",
            [str(owner), run_id],
        )
    ended = checkout.command("harness.sync")
    assert (ended.status, ended.output) == (1, "")
    (line,) = ended.errors.splitlines()
    assert "may only be read" in line


@pytest.mark.parametrize("read_only", ["with its log", "at rest"], indirect=True)
def test_the_pages_serve_reading_alone(read_only: tuple[ReadOnly, str]) -> None:
    checkout, run_id = read_only
    before = checkout.everything()
    words = [sys.executable, "-m", "harness.ui", "--no-browser", "--port", str(free_port())]
    process = subprocess.Popen(
        [*bound_by_file_modes(), *words],
        cwd=checkout.root,
        env=checkout.environment(HOME=str(checkout.cache), TMPDIR=str(checkout.cache)),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert said.endswith("mlflow.db may only be read: the pages change nothing.\n")
        link = urlsplit(process.stdout.readline().split()[-1])
        (token,) = parse_qs(link.query)["token"]

        def ask(method: str, **query: object) -> dict[str, object]:
            request = urllib.request.Request(
                f"http://{link.netloc}/api/2.0/mlflow/{method}",
                data=json.dumps(query).encode() if query else None,
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                return dict(json.load(reply))

        assert run_id in json.dumps(ask(f"runs/get?run_id={run_id}"))
        assert ask("experiments/search", max_results=10)["experiments"]
        for method, query in (
            ("runs/set-tag", {"run_id": run_id, "key": "a", "value": "b"}),
            ("runs/delete", {"run_id": run_id}),
            ("experiments/create", {"name": "new"}),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(method, **query)
            assert refused.value.code == 403
            assert refused.value.read() == b"The store may only be read."
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stdout
        process.stdout.close()
    assert checkout.everything() == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
def test_large_arrays_stay_in_memory(tmp_path: Path, read_only: tuple[ReadOnly, str]) -> None:
    checkout, _ = read_only
    program = (
        "import numpy as np\n"
        "from harness.training.mapped_arrays import SMALLEST_MAPPED, shared\n"
        "print(int(shared(np.ones(SMALLEST_MAPPED, dtype=np.uint8)).sum()) == SMALLEST_MAPPED)"
    )
    ended = subprocess.run(
        [*bound_by_file_modes(), sys.executable, "-c", program],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("True\n", "")
