"""What the tests share: copies of the project with a store of their own, and commands run there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from filelock import FileLock
from hypothesis import settings

from harness.base import project
from harness.base.machine import process_start
from harness.base.processes import end_tree

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(__file__).resolve().parent.parent

os.environ.pop(project.VARIABLE, None)  # another project than this checkout
project.root()  # found once: tests change the current folder

PARTS = ("harness", "experiments", "studies", "pyproject.toml", ".gitignore")
"""What a copy of the project is made of; what runs leave behind is not part of it."""

QUICK = ("--dataset", "digits", "--num-epochs", "2", "--threads", "1")
"""Flags of a run that takes no time and needs no file."""

NOWHERE = "http://127.0.0.1:1"
"""A server that refuses every connection, so that no test downloads anything."""

GIT = shutil.which("git")

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

NO_CHANGES: Mapping[str, str] = {}

USER = "some-user-of-the-machine"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-environment",
    "MLFLOW_TRACKING_PASSWORD": "password-of-the-environment",
    "HARNESS_DATA_MIRROR": "http://ann:password-of-the-mirror@127.0.0.1:1",
}


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit status, what it printed, how long it took."""

    status: int
    output: str
    errors: str
    seconds: float

    @property
    def run_id(self) -> str:
        """The id of the run that it has printed."""
        (run_id,) = re.findall(r"^run ([0-9a-f]{32})$", self.output, re.MULTILINE)
        return str(run_id)


@dataclass(frozen=True)
class Checkout:
    """A copy of the project: what its commands leave behind stays in its folder."""

    root: Path

    @classmethod
    def copied_to(cls, root: Path) -> Checkout:
        root.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, root / part)
            else:
                shutil.copy2(source, root / part)
        return cls(root)

    @property
    def store(self) -> Path:
        return self.root / "mlruns" / "mlflow.db"

    def environment(self, **changes: str) -> dict[str, str]:
        """This process's environment without what would lead the copy elsewhere."""
        foreign = ("MLFLOW_", "HARNESS_", "GIT_", "COLUMNS")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        own = {"PYTHONPATH": str(self.root), "HARNESS_DATA_MIRROR": NOWHERE}
        return kept | own | changes

    def start(
        self, module: str, *words: str, changes: Mapping[str, str] = NO_CHANGES, **options: Any
    ) -> subprocess.Popen[str]:
        """A command at work, its output in a pipe; whoever starts it ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env=self.environment(**changes),
            text=True,
            **{"cwd": self.root, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options},
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """MLflow's pages on what was recorded here, by `python -m harness.ui`: its link."""
        port = free_port()
        process = self.start("harness.ui", "--no-browser", "--port", str(port))
        try:
            assert process.stdout
            words = process.stdout.readline().split()
            assert words[-1].startswith(f"http://127.0.0.1:{port}/"), words
            yield words[-1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)

    def run(
        self, *arguments: str, folder: Path | None = None, changes: Mapping[str, str] = NO_CHANGES
    ) -> Ended:
        """Run an experiment, as `python -m harness.run` does, to its end."""
        return self.command("harness.run", *arguments, folder=folder, changes=changes)

    def command(
        self,
        module: str,
        *arguments: str,
        folder: Path | None = None,
        changes: Mapping[str, str] = NO_CHANGES,
    ) -> Ended:
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder or self.root,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - started)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """An experiment while it runs, in a process group of its own as in a terminal."""
        process = self.start(
            "harness.run", *arguments, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream
                stream.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[MlflowClient]:
        """MLflow's own client, used from the root as anyone would."""
        from mlflow import MlflowClient

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.store}")
            yield MlflowClient()

    def runs(self) -> list[Run]:
        """Every run in the store, the latest first."""
        with self.opened() as client:
            everywhere = [found.experiment_id for found in client.search_experiments()]
            return list(client.search_runs(everywhere))

    def git(self, *words: str) -> str:
        """Have git do something here, as somebody without any settings of their own."""
        identity = {
            f"GIT_{role}_{what}": "somebody@example.org"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        environment = self.environment(GIT_CONFIG_GLOBAL=os.devnull, **identity)
        return subprocess.run(
            ["git", *words],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout


@dataclass
class Server:
    """A tracking server of MLflow's that can be stopped and started again."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = dataclasses.field(default=None, init=False)

    @classmethod
    def new(cls, folder: Path) -> Server:
        """One that keeps everything in a new folder, and is not started yet."""
        folder.mkdir()
        return cls(folder, free_port())

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", f"sqlite:///{self.folder}/server.db"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            cwd=self.folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self.answers:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)

    @property
    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """As a power cut does."""
        if self._process:
            end_tree(self._process.pid, grace=0)
            self._process.wait()


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_in(root: Path, modules: Sequence[str]) -> list[int]:
    """The living processes of a checkout that run one of these modules."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()  # a zombie has none
            if set(modules) & set(words) and Path(process.cwd()) == root.resolve():
                found.append(process.pid)
    return found


def children_of(parent: int) -> list[int]:
    """The living processes that a process has started."""
    try:
        children = psutil.Process(parent).children()
    except psutil.NoSuchProcess:
        return []
    return [child.pid for child in children if process_start(child.pid) is not None]


def bound_by_file_modes() -> list[str]:
    """What stands before a command so that file modes bind it, also where root runs it."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.call([*words, "true"]):
        pytest.skip("root, whom file modes do not bind, and setpriv does not change that here")
    return words


@pytest.fixture(autouse=True, scope="session")
def _no_telemetry() -> None:
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


PROCESS_FOLDERS = {"commands", "crashes", "pages"}
PROCESS_FIXTURES = {"checkout", "finished", "group", "worked", "reports"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes by their folder or fixtures; others mark themselves."""
    for item in items:
        fixtures = PROCESS_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if fixtures or item.path.parent.name in PROCESS_FOLDERS:
            item.add_marker("processes")


_process_starts: list[str] = []


def _note_process_start(event: str, arguments: tuple[object, ...]) -> None:
    # Libraries that are imported start small tools, as ldconfig.
    if event == "os.fork" or (event == "subprocess.Popen" and sys.executable in str(arguments[1])):
        _process_starts.append(event)


sys.addaudithook(_note_process_start)


@pytest.fixture(autouse=True)
def _only_marked_tests_start_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    _process_starts.clear()
    yield
    if _process_starts and not request.node.get_closest_marker("processes"):
        pytest.fail("It starts a process: mark it with @pytest.mark.processes.")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the project in which nothing was run yet."""
    return Checkout.copied_to(tmp_path / "checkout")


Recorded = tuple[Checkout, Ended]


def once(
    factory: pytest.TempPathFactory,
    name: str,
    arguments: tuple[str, ...],
    changes: Mapping[str, str] = NO_CHANGES,
    prepare: Callable[[Checkout], None] = lambda checkout: None,
) -> Recorded:
    """A copy of the project with one command's run; the workers of pytest-xdist share it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    checkout = Checkout(folder / name)
    # Outside the checkout, in which git would see it.
    record = folder / f"{name}.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            prepare(Checkout.copied_to(checkout.root))
            ended = checkout.run(*arguments, changes=changes)
            record.write_text(json.dumps(dataclasses.asdict(ended)))
    return checkout, Ended(**json.loads(record.read_text()))


SECRET_FILE = "harness/with_a_key.py"
"""A new source with a key, which no record may hold."""


def _with_history(checkout: Checkout) -> None:
    """Commit the copy, then change it in every way that leaves uncommitted changes behind."""
    if not GIT:
        return
    checkout.git("init", "--quiet")
    (checkout.root / "old_notes.txt").write_text("to be deleted\n")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "All of it")
    (checkout.root / "old_notes.txt").unlink()
    with (checkout.root / "experiments" / "baseline.py").open("a") as file:
        file.write("# changed\n")
    (checkout.root / "new_notes.txt").write_bytes("Größe\r\nno end of line".encode())
    (checkout.root / "keys.py").write_text('API_KEY = "secret-of-a-file"\n')
    (checkout.root / SECRET_FILE).write_text('API_KEY = "secret-of-a-source"\n')


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A finished run of the baseline, in a git checkout with changes, with secrets all around."""
    return once(
        tmp_path_factory,
        "finished",
        (
            *("baseline", *QUICK, "--run-name", "first try", "--tag", "colour=blue"),
            *("--tag", "source=https://ann:password-of-a-tag@example.org/data"),
        ),
        {name: USER for name in ("LOGNAME", "USER", "LNAME", "USERNAME")} | SECRETS,
        _with_history,
    )


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Three seeds of softmax regression as one group."""
    return once(
        tmp_path_factory,
        "group",
        ("softmax_regression", *QUICK, "--repeats", "3", "--seed", "4", "--no-figures"),
    )


HOSTILE = "<script>alert('run')</script>"
"""A run's name that pages must show and never obey."""


def _work(checkout: Checkout) -> None:
    """A study, a group of seeds with a hostile name, and a run of other values."""
    for module, *words in (
        (
            *("harness.study", "joint_search", *QUICK, "--workers", "1"),
            *("--n-trials", "6", "--confirm-seeds", "2"),
        ),
        (
            *("harness.run", "softmax_regression", *QUICK, "--repeats", "3", "--no-figures"),
            *("--run-name", HOSTILE),
        ),
        ("harness.run", "baseline", *QUICK, "--lr", "0.5", "--hidden-width", "64", "--no-figures"),
        ("harness.run", "baseline", *QUICK, "--lr", "0.05", "--seed", "1", "--no-figures"),
    ):
        ended = checkout.command(module, *words)
        assert ended.status == 0, ended.errors


@pytest.fixture(scope="session")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A session of work in one copy of the project; it ends with a run of the baseline."""
    return once(tmp_path_factory, "worked", ("baseline", *QUICK), prepare=_work)


@pytest.fixture(scope="session")
def reports(worked: Recorded) -> dict[str, Path]:
    """The reports of that session's study and experiment, as the command writes them."""
    checkout, _ = worked
    folder = checkout.root.with_name("reports")
    paths = {name: folder / f"{name}.html" for name in ("joint_search", "baseline")}
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            for name, path in paths.items():
                ended = checkout.command("harness.report", name, "--out", str(path))
                assert (ended.status, ended.errors) == (0, ""), ended
                assert str(path) in ended.output
            assert sorted(folder.iterdir()) == sorted(paths.values())
    return paths
