"""Every bad request gets a short message and the right exit status, and changes nothing.

A row is a command, its exit status and a part of its message. Three servers answer the rows: one
that may import no library, one that may import tyro, and, for requests that only an experiment or
a study can judge, one that forks from a process that has imported torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Checkout, Ended, Recorded, bound_by_file_modes
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.baseline import Baseline
from harness import run, study
from harness.base import discovery
from harness.base.errors import BadRequest
from harness.cli import entry, flags
from harness.cli.run_flags import RunSettings

LONG = "x" * 100_000

BROKEN: dict[str, bytes] = {
    "empty": b"",
    "syntax": b"def network(:",
    "nul": b'"""Zero."""\n\0',
    "latin": "# Größe".encode("latin-1"),
    "deep": b"(" * 5000 + b")" * 5000,
    "raises": b"1 / 0",
    "many_lines": b"raise ValueError('first\\nsecond\\nthird')",
    "leaves": b"import sys\nsys.exit()",
    "absent": b"import nowhere_to_be_found",
}
"""Files that are neither an experiment nor a study."""

MODEL = """
    def network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""

EXPERIMENTS = {
    "two": "class A(Experiment):" + MODEL + "class B(Experiment):" + MODEL,
    "abstract": "class A(Experiment):\n    lr = 0.2\n",
    "unknown_mark": "class A(Experiment):\n    width: Annotated[int, Count] = 3\n" + MODEL,
    "two_types": "class A(Experiment):\n    width: int | str = 3\n" + MODEL,
    "odd_bound": "class A(Experiment):\n    width: Annotated[int, MultipleOf(2)] = 4\n" + MODEL,
    "mutable": "class A(Experiment):\n    widths: list[int] = [3]\n" + MODEL,
    "bad_default": "class A(Experiment):\n    lr = -1.0\n" + MODEL,
    "no_default": "class A(Experiment):\n    width: int\n" + MODEL,
    "no_model": "class A(Experiment):\n    def network(self):\n        return None\n",
    "raising": "class A(Experiment):\n    def network(self):\n        raise ValueError('no')\n",
}

STUDIES = {
    "unknown_field": "Study(experiment=Baseline(), space={'hiden_width': Int(16, 32)})",
    "below_bounds": "Study(experiment=Baseline(), space={'lr': Float(-1, 1)})",
    "beyond_bounds": "Study(experiment=Baseline(), space={'batch_size': Int(1, 10**12)})",
    "wrong_type": "Study(experiment=Baseline(), space={'hidden_width': Float(16, 32)})",
    "default_left_out": "Study(experiment=Baseline(), space={'batch_size': Choice([32, 64])})",
    "not_comparable": "Study(experiment=Baseline(), space={'validation_size': Int(1, 20)})",
    "no_distribution": "Study(experiment=Baseline(), space={'lr': (0.1, 1.0)})",
    "upside_down": "Study(experiment=Baseline(), space={'lr': Float(1.0, 0.1)})",
    "no_space": "Study(experiment=Baseline())",
    "no_experiment": "Study(experiment='baseline', space={'lr': Float(0.1, 1.0)})",
    "bad_experiment": "Study(experiment=Baseline(lr=-1), space={'lr': Float(0.1, 1.0)})",
    "no_trials": "Study(experiment=Baseline(), space={'lr': Float(0.1, 1.0)}, n_trials=0)",
    "no_study": "Baseline()",
}


def experiment_file(body: str) -> str:
    return (
        '"""An experiment."""\nfrom __future__ import annotations\nfrom typing import Annotated\n'
        "from annotated_types import MultipleOf\nfrom torch import nn\n"
        "from harness import Experiment\n" + body
    )


def study_file(declaration: str) -> str:
    return (
        '"""A study."""\nfrom experiments.baseline import Baseline\n'
        "from harness import CategoricalDistribution as Choice\n"
        "from harness import FloatDistribution as Float, IntDistribution as Int, Study\n"
        f"study = {declaration}\n"
    )


def break_files(root: Path) -> None:
    """Put files that do not work into a copy of the project."""
    for folder in ("experiments", "studies"):
        for name, content in BROKEN.items():
            (root / folder / f"{name}.py").write_bytes(content)
        (root / folder / "folder.py").mkdir()
    for name, body in EXPERIMENTS.items():
        (root / "experiments" / f"{name}.py").write_text(experiment_file(body))
    for name, declaration in STUDIES.items():
        (root / "studies" / f"{name}.py").write_text(study_file(declaration))
    (root / "file").write_text("not a folder")
    (root / "a_folder").mkdir()


@dataclass(frozen=True)
class Row:
    """A request, its exit status, and a part of its message."""

    module: str
    words: tuple[str, ...]
    message: str
    status: int = 2
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = [f"{name}={value}" for name, value in self.environment.items()]
        shown += [self.module, *self.words]
        return " ".join(word if len(word) < 80 else f"{word[:20]}..." for word in shown)


def asked(module: str, words: str, message: str, status: int = 2, **environment: str) -> Row:
    return Row(module, tuple(words.split()), message, status, environment)


def recorded_in(uri: str, message: str = "MLFLOW_TRACKING_URI") -> Row:
    return asked("harness.run", "baseline", message, MLFLOW_TRACKING_URI=uri)


AT_ONCE = [
    asked("harness", "rum", "Did you mean run?"),
    asked("harness", "../run", "There is no command '../run'"),
    asked("harness", "Größe", "There is no command 'Größe'"),
    asked("harness", "--lr 1", "There is no command '--lr'"),
    asked("harness", LONG, "There is no command 'xxxx"),
    Row("harness", ("",), "There is no command ''"),
    Row("harness", ("run\n",), r"There is no command 'run\n'"),
    asked("harness.run", "basline", "Did you mean baseline?"),
    asked("harness.run", "baseline.py", "Did you mean baseline?"),
    asked("harness.run", "../experiments/baseline", "There is no experiment '../exp"),
    asked("harness.run", "/etc/hosts", "There is no experiment '/etc/hosts'"),
    asked("harness.run", "__init__", "There is no experiment '__init__'"),
    asked("harness.run", "experiments.baseline", "There is no experiment"),
    asked("harness.run", "基线", "There is no experiment '基线'"),
    asked("harness.run", LONG, "There is no experiment 'xxxx"),
    Row("harness.run", ("",), "There is no experiment ''"),
    Row("harness.run", ("\udcff",), r"There is no experiment '\udcff'"),
    asked("harness.run", "folder", "There is no experiment 'folder'"),
    asked(
        "harness.run", "syntax", "experiments/syntax.py cannot be imported: invalid syntax (line"
    ),
    asked("harness.run", "nul", "cannot contain null bytes\n"),
    asked("harness.run", "latin", "experiments/latin.py cannot be imported: "),
    asked("harness.run", "deep", "experiments/deep.py cannot be imported: too many nested"),
    asked("harness.run", "baseline --lr 0.1 --lr 0.2", "--lr is given 2 times"),
    asked("harness.run", "baseline --lr=1 --lr=1 --lr=1", "--lr is given 3 times"),
    asked("harness.run", "baseline --batch-size 8 --batch_size 9", "--batch-size is given 2 times"),
    recorded_in("nonsense", "MLFLOW_TRACKING_URI: 'nonsense' is not the URL of a record store"),
    recorded_in("./mlruns", "is not the URL of a record store"),
    recorded_in("file:./mlruns", "is not the URL of a record store"),
    recorded_in(" ", "is not the URL of a record store"),
    recorded_in("ftp://example.org/runs", "is not the URL of a record store"),
    recorded_in("http://", "'http://' names no host"),
    recorded_in("http://ann:hidden-word@", "'http://***@' names no host"),
    recorded_in("http://[::1", "is not a URL (Invalid IPv6 URL)"),
    recorded_in("http://127.0.0.1:port/", "is not a URL (Port could not be cast"),
    recorded_in("sqlite://", "'sqlite://' names no file"),
    recorded_in("sqlite:///", "'sqlite:///' names no file"),
    recorded_in("sqlite:///:memory:", "names no file"),
    asked("harness.study", "lr_serch", "Did you mean lr_search or"),
    asked("harness.study", "../studies/lr_search", "There is no study '../studies"),
    asked("harness.study", "baseline", "There is no study 'baseline'"),
    asked("harness.study", "syntax", "studies/syntax.py cannot be imported: invalid syntax (line"),
    asked("harness.study", "nul", "null bytes"),
    asked("harness.study", "lr_search --workers 1 --workers 2", "--workers is given 2 times"),
    asked(
        "harness.study",
        "lr_search",
        "is not the URL of a record store",
        MLFLOW_TRACKING_URI="nonsense",
    ),
]
"""Refused without any library."""

BY_THEIR_FLAGS = [
    asked("harness.ui", "--port 0", "error: port: 0 is not allowed, it must be at least 1024"),
    asked("harness.ui", "--port 99999", "at most 65535"),
    asked("harness.ui", "--port x", "--port: 'x' is not a whole number"),
    asked("harness.ui", "--port 1e3", "--port: '1e3' is not a whole number"),
    asked("harness.ui", "--port", "--port: the value is missing"),
    asked("harness.ui", "--prot 5000", "There is no flag --prot. Did you mean --port or --host?"),
    asked("harness.ui", "--port 5000 --port 5001", "--port is given 2 times"),
    asked("harness.ui", "baseline", "baseline"),
    asked("harness.ui", "--no-browser=maybe", "There is no flag or argument maybe"),
    asked(
        "harness.ui", "--host example.org", "host: 'example.org' is not an address of this machine"
    ),
    asked("harness.ui", "--host 192.0.2.1", "host: '192.0.2.1' is not an address of this machine"),
    asked("harness.ui", "--host 127.0.0.1:80", "is not an address of this machine"),
    asked("harness.ui", "--experiment nobody", "experiment: nothing was recorded in sqlite:///"),
    asked("harness.ui", "", "is not the URL of a record store", MLFLOW_TRACKING_URI="nonsense"),
    asked("harness.bench", "--rounds 0", "rounds: 0 is not allowed, it must be at least 1"),
    asked("harness.bench", "--rounds -1", "rounds: -1 is not allowed"),
    asked("harness.bench", "--rounds 2.5", "--rounds: '2.5' is not a whole number"),
    asked("harness.bench", f"--rounds {10**30}", "it must be at most 2147483647"),
    asked("harness.bench", "--num-epochs nan", "'nan' is not a whole number"),
    asked("harness.bench", "--threads -1", "threads: -1 is not allowed"),
    asked("harness.bench", "--dataset digits", "fashion-mnist"),
    asked("harness.bench", "--num-epochs 1 --num_epochs 2", "--num-epochs is given 2 times"),
    asked("harness.bench", "--lr 0.1", "There is no flag --lr. All flags: python -m harness.b"),
    asked("harness.bench", "baseline", "baseline"),
    asked("harness.verify", "../../etc/hosts", "verify: nothing was recorded in sqlite:///"),
    asked("harness.verify", "--exact", "Missing: RUN."),
    asked("harness.verify", "0" * 32, "verify: nothing was recorded in sqlite:///"),
    asked("harness.verify", f"{'0' * 32} --tolerance -1", "tolerance: -1.0 is not allowed"),
    asked("harness.verify", f"{'0' * 32} --tolerance nan", "tolerance: nan is not a finite number"),
    asked("harness.verify", f"{'0' * 32} --threads 2 --threads 3", "--threads is given 2 times"),
    asked("harness.verify", f"{'0' * 32} --treads 2", "Did you mean --threads?"),
    asked(
        "harness.verify",
        "0" * 32,
        "is not the URL of a record store",
        MLFLOW_TRACKING_URI="nonsense",
    ),
    *(
        asked("harness.run", f"--resume {run}", "resume: nothing was recorded in sqlite:///")
        for run in ("last", "0" * 32, "''", "../../etc/hosts", LONG)
    ),
    asked("harness.run", "--resume", "--resume: the value is missing"),
    asked("harness.run", "--resume last --resume last", "--resume is given 2 times"),
    asked("harness.run", "--resume last --allow luck", "luck"),
    asked("harness.sync", "now", "now"),
    asked("harness.sync", "--all", "There is no flag --all"),
    asked("harness.sync", "", "is not the URL of a record store", MLFLOW_TRACKING_URI="nonsense"),
    asked("harness.compare", "--limit 0", "limit: 0 is not allowed"),
    asked("harness.compare", "--colums lr", "Did you mean --columns or"),
    asked("harness.compare", "--limit 1 --limit 2", "--limit is given 2 times"),
    asked(
        "harness.compare", "", "is not the URL of a record store", MLFLOW_TRACKING_URI="nonsense"
    ),
]
"""Refused without the libraries that train, record and search."""

ON_DIGITS = "baseline --dataset digits "


def with_flags(words: str, message: str, status: int = 2) -> Row:
    return asked("harness.run", ON_DIGITS + words, message, status)


LINUX = sys.platform == "linux"


def searched(words: str, message: str, status: int = 2) -> Row:
    return asked("harness.study", "lr_search --dataset digits " + words, message, status)


def named(flag: str, value: str, message: str) -> Row:
    return Row("harness.run", (*ON_DIGITS.split(), flag, value), message)


BY_THEIR_CONTENT = [
    *(
        asked(module, f"{flag}{run}", f"{what}: there is no run {run!r} here. ")
        for module, flag, what in (
            ("harness.run", "--resume ", "resume"),
            ("harness.run", "--resume=", "resume"),
            ("harness.verify", "", "verify"),
        )
        for run in ("../../etc/hosts", "file:///etc/hosts", "0" * 31, "G" * 32, "٣" * 32)
    ),
    with_flags("--lr -1", "lr: -1.0 is not allowed, it must be greater than 0"),
    with_flags("--lr nan", "lr: nan is not a finite number"),
    with_flags("--lr inf", "lr: inf is not a finite number"),
    with_flags("--lr 1e400", "lr: inf is not a finite number"),
    with_flags("--lr 1,5", "--lr: '1,5' is not a number"),
    with_flags("--lr", "--lr: the value is missing"),
    named("--lr", "", "--lr: '' is not a number"),
    with_flags("--batch-size 0", "batch_size: 0 is not allowed, it must be at least 1"),
    with_flags("--batch-size -5", "batch_size: -5 is not allowed"),
    with_flags("--batch-size 1e3", "--batch-size: '1e3' is not a whole number"),
    with_flags(f"--batch-size {10**30}", "it must be at most 2147483647"),
    with_flags("--hidden-width 2.5", "--hidden-width: '2.5' is not a whole number"),
    with_flags("--hidden-width ٣x", "'٣x' is not a whole number"),
    with_flags("--hiden-width 5", "There is no flag --hiden-width. Did you mean --hidden-width?"),
    with_flags("--num-epochs -3", "num_epochs: -3 is not allowed"),
    with_flags("--seed -1", "seed: -1 is not allowed"),
    with_flags(f"--seed {2**64}", f"seed: {2**64} is not allowed"),
    with_flags(f"--seed {2**63 - 1} --repeats 2", f"seed: {2**63} is not allowed"),
    with_flags("--repeats 0", "repeats: 0 is not allowed"),
    with_flags("--validation-size -1", "validation_size: -1 is not allowed"),
    with_flags("--validation-size 1437", "validation_size: 1437 is not allowed, digits has 1437"),
    with_flags("--threads -1", "threads: -1 is not allowed"),
    with_flags(f"--threads {10**12}", "at most 1024"),
    with_flags("--device toaster", "device: 'toaster' is not one of this machine's: auto, cpu"),
    with_flags("--device cuda:99", "device: 'cuda:99' is not one of this machine's"),
    with_flags("--matmul-precision low", "highest"),
    with_flags("--capture-graph=maybe", "There is no flag or argument maybe"),
    with_flags("--fallback mnist", "digits"),
    with_flags("extra", "extra"),
    with_flags("-x", "-x"),
    with_flags("--../lr 1", "There is no flag --../lr"),
    with_flags(
        "--tyro-write-completion bash completion", "There is no flag --tyro-write-completion"
    ),
    with_flags("--tag nonsense", "tag: expected key=value, got 'nonsense'"),
    with_flags("--tag =x", "tag: expected key=value, got '=x'"),
    with_flags("--tag mlflow.user=x", "begin with mlflow. or harness. are reserved"),
    with_flags(
        "--tag ../x=1",
        "tag: a key is at most 250 letters, digits and . : - _ characters, not '../x'",
    ),
    with_flags("--tag a=1 --tag a=2", "tag: the key a is given twice"),
    with_flags(f"--tag {'k' * 251}=1", "at most 250"),
    with_flags(f"--tag k={LONG}", "tag: expected at most 5,000 characters, got 100,002"),
    named("--tag", "a=b\nc", r"contains the control character '\n'"),
    named("--run-name", "", "run_name: '' is not allowed, it must be 1 to 250 characters long"),
    named("--run-name", "n" * 251, "it must be 1 to 250 characters long"),
    named("--run-name", "zero\0", r"run_name: 'zero\x00' contains the control character '\x00'"),
    named("--run-name", "\x1b[2J", r"contains the control character '\x1b'"),
    named("--run-name", "\udcff", r"contains the control character '\udcff'"),
    Row("harness.run", ("baseline", "--data-root", "a\0b"), r"data_root: 'a\x00b' holds a null"),
    asked("harness.run", "baseline --dataset imagenet", "fashion-mnist"),
    asked("harness.run", "baseline --data-root file", "fashion-mnist is not in", 1),
    asked("harness.run", f"baseline --data-root {'y' * 5000}", "fashion-mnist is not in", 1),
    asked("harness.run", "baseline", "HARNESS_DATA_ROOT", 1, HARNESS_DATA_ROOT="file"),
    asked("harness.run", "empty", "this one has none"),
    asked("harness.run", "raises", "experiments/raises.py cannot be imported: ZeroDivisionError"),
    asked("harness.run", "many_lines", "cannot be imported: ValueError: first"),
    asked("harness.run", "leaves", "experiments/leaves.py cannot be imported: SystemExit\n"),
    asked("harness.run", "absent", "No module named 'nowhere_to_be_found'"),
    asked("harness.run", "two", "this one has A, B"),
    asked("harness.run", "abstract", "A does not define network()"),
    asked("harness.run", "unknown_mark", "name 'Count' is not defined"),
    asked("harness.run", "two_types", "width: expected one type"),
    asked("harness.run", "odd_bound", "MultipleOf"),
    asked("harness.run", "mutable", "mutable default"),
    asked("harness.run", "bad_default", "lr: -1.0 is not allowed"),
    asked("harness.run", "no_default", "--width"),
    asked("harness.run", "no_model --dry-run --dataset digits", "network() of A must return", 1),
    asked("harness.run", "raising --dry-run --dataset digits", "raising failed: ValueError", 1),
    searched("--n-trials 0", "n_trials: 0 is not allowed"),
    searched(f"--n-trials {10**12}", "at most 1000000"),
    searched("--timeout -1", "timeout: -1.0 is not allowed"),
    searched("--timeout nan", "timeout: nan is not a finite number"),
    searched(f"--workers {10**9}", "workers: 1000000000 is not allowed"),
    searched("--sampler tpee", "tpe"),
    searched("--pruner percentile", "median"),
    searched("--sampler-seed -1", "sampler_seed: -1 is not allowed"),
    searched("--confirm-seeds -1", "confirm_seeds: -1 is not allowed"),
    searched(f"--confirm-seeds {10**9}", "at most 1000"),
    searched(f"--seed {2**63 - 2}", f"seed: {2**63} is not allowed"),
    searched("--lr -0.1", "lr: -0.1 is not allowed"),
    searched("--validation-size 1437", "digits has 1437 training examples here"),
    searched("--device abacus", "device: 'abacus' is not one of this machine's"),
    searched("--storage mlruns/optuna.db", "mlruns/optuna.db, got 'mlruns/optuna.db'"),
    searched(
        "--storage nonsense",
        "mlruns/optuna.db, got 'nonsense'",
    ),
    searched("--storage redis://127.0.0.1", "storage: expected a database URL"),
    searched("--storage postgresql://ann:hidden-word@h:port/db", "postgresql://***@h:port/db"),
    searched("--storage sqlite:///:memory:", "cannot share a database in memory"),
    searched("--storage sqlite:///a_folder", "a_folder: this is a folder, not a database", 1),
    searched("--storage sqlite:///file/optuna.db", "cannot be opened", 1),
    searched("--storage sqlite:///mlruns/mlflow.db", "not a database of Optuna ", 1),
    searched("--storage sqlite:////dev/null/x.db", "cannot be opened: ", 1),
    *([searched("--storage sqlite:////proc/x.db", "cannot be opened: ", 1)] if LINUX else []),
    searched("--warm-start nobody", "warm_start: there is no stored study 'nobody'"),
    searched("--unknown 3", "There is no flag --unknown"),
    Row("harness.study", ("lr_search", "--study-name", ""), "study_name: '' is not allowed"),
    Row("harness.study", ("lr_search", "--study-name", "a\tb"), r"control character '\t'"),
    asked("harness.study", "empty", "studies/empty.py: expected a Study called"),
    asked("harness.study", "raises", "studies/raises.py cannot be imported: ZeroDivisionError"),
    asked("harness.study", "leaves", "studies/leaves.py cannot be imported: SystemExit"),
    asked("harness.study", "unknown_field", "Did you mean hidden_width?"),
    asked("harness.study", "below_bounds", "imported: lr: -1.0 is not allowed"),
    asked("harness.study", "beyond_bounds", "batch_size: 1000000000000 is not allowed"),
    asked("harness.study", "wrong_type", "hidden_width: 16.0 is not a whole number"),
    asked("harness.study", "default_left_out", "own value 256, which is trial 0"),
    asked("harness.study", "not_comparable", "validation_size cannot be searched"),
    asked("harness.study", "no_distribution", "A study cannot use the distribution tuple"),
    asked("harness.study", "upside_down", "studies/upside_down.py cannot be imported"),
    asked("harness.study", "no_space", "needs either a space"),
    asked("harness.study", "no_experiment", "expected an experiment with its values"),
    asked("harness.study", "bad_experiment", "lr: -1.0 is not allowed"),
    asked("harness.study", "no_trials", "n_trials: 0 is not allowed"),
    asked("harness.study", "no_study", "expected a Study called"),
]
"""Refused by an experiment, a study or the data: torch is there, MLflow is not."""


def state(root: Path) -> dict[str, str]:
    """The digest of every file of a folder; for a database, of its content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if "__pycache__" in path.parts or ".git" in path.parts or not path.is_file():
            continue
        if path.name.endswith(("-wal", "-shm", ".lock")):
            continue
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                content = "\n".join(connection.iterdump()).encode()
        else:
            content = path.read_bytes()
        found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


def check(row: Row, ended: Ended) -> None:
    assert row.message in ended.errors, ended
    assert ended.status == row.status, ended
    assert ended.output == ""
    assert ended.errors.startswith("error: ")
    assert "Traceback" not in ended.errors
    assert "hidden-word" not in ended.errors
    assert len(ended.errors.splitlines()) <= 4
    assert max(map(len, ended.errors.splitlines())) <= entry.LONGEST_LINE + 20
    assert ended.errors.endswith("\n")


def forbid(root: Path, *libraries: str) -> None:
    """End every process that imports one of the libraries: its name is found here first."""
    for library in libraries:
        (root / f"{library}.py").write_text("import os\nos._exit(99)\n")


HEAVY = ("torch", "torchvision", "numpy", "mlflow", "optuna", "sqlalchemy", "pandas", "matplotlib")


SERVER = """
import importlib, json, os, sys, tempfile
from pathlib import Path
from harness.cli import entry

for name in sys.argv[1:]:
    importlib.import_module(name)


class Untouched:  # the recorder's process: started, forgotten by workers, ended, nothing else
    def forget(self):
        pass

    def close(self):
        pass


if process := sys.modules.get("harness.tracking.recorder_process"):
    process.RecorderProcess = Untouched


class NoMlflow:
    def find_spec(name, path=None, target=None):
        if name == "mlflow":
            os._exit(99)


def answer(request):
    os.environ.update(request["environment"])
    name = request["module"]
    module = importlib.import_module("harness.__main__" if name == "harness" else name)
    sys.argv = [module.__file__, *request["words"]]
    sys.meta_path.insert(0, NoMlflow)
    entry.enter(module.main)


for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            answer(json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for stream in (output, errors):
            stream.seek(0)
        print(json.dumps([status, output.read(), errors.read()]), flush=True)
"""


class Server:
    """A process that imports the slow modules once, then answers each request in a fork."""

    def __init__(self, checkout: Checkout, *modules: str) -> None:
        self.root = checkout.root
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *modules],
            cwd=checkout.root,
            env=checkout.environment(OMP_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, row: Row) -> Ended:
        assert self.process.stdin
        assert self.process.stdout
        request = {"module": row.module, "words": row.words, "environment": row.environment}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        status, output, errors = json.loads(self.process.stdout.readline())
        return Ended(status, output, errors, seconds=0)


@contextlib.contextmanager
def serving(checkout: Checkout, *modules: str) -> Iterator[Server]:
    break_files(checkout.root)
    server = Server(checkout, *modules)
    yield server
    assert server.process.stdin
    server.process.stdin.close()
    assert server.process.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without any library, in a new copy of the project."""
    checkout = Checkout.copied_to(tmp_path_factory.mktemp("bare") / "checkout")
    forbid(checkout.root, *HEAVY, "tyro", "rich", "filelock")
    with serving(checkout, "harness.run", "harness.study") as server:
        yield server


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With tyro as the only library, in a new copy of the project."""
    checkout = Checkout.copied_to(tmp_path_factory.mktemp("light") / "checkout")
    forbid(checkout.root, *HEAVY)
    with serving(checkout, "harness.ui", "harness.cli.bench_flags", "tyro") as server:
        yield server


@pytest.fixture(scope="module")
def loaded(finished: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With all libraries but MLflow, in a copy of the project that holds a finished run."""
    recorded, _ = finished
    root = tmp_path_factory.mktemp("loaded") / "checkout"
    shutil.copytree(recorded.root, root, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    names = ("cli.run_flags", "cli.study_flags", "cli.experiment_run", "workers.study_run")
    with serving(Checkout(root), *(f"harness.{name}" for name in names)) as server:
        yield server


def check_nothing_comes_of_it(server: Server, row: Row) -> None:
    before = state(server.root)
    check(row, server.answer(row))
    assert state(server.root) == before


@pytest.mark.parametrize("row", AT_ONCE, ids=str)
def test_it_is_answered_without_any_library(bare: Server, row: Row) -> None:
    check_nothing_comes_of_it(bare, row)
    assert not (bare.root / "mlruns").exists()


@pytest.mark.parametrize("row", BY_THEIR_FLAGS, ids=str)
def test_it_is_answered_without_the_libraries_that_compute(light: Server, row: Row) -> None:
    check_nothing_comes_of_it(light, row)
    assert not (light.root / "mlruns").exists()


@pytest.mark.parametrize("row", BY_THEIR_CONTENT, ids=str)
def test_it_is_answered_before_anything_is_trained_or_recorded(loaded: Server, row: Row) -> None:
    check_nothing_comes_of_it(loaded, row)


def test_a_list_goes_on_without_files_that_are_none(bare: Server) -> None:
    answer = bare.answer(asked("harness", "", "", 0))
    assert (answer.status, answer.errors) == (0, "")
    for line in ("syntax", "lenet", "lr_search", "latin"):
        assert f"\n  {line}  " in answer.output
    assert answer.output.count("(cannot be read: ") >= 4
    assert " folder " not in answer.output


# ---- the same mistake in every command ----

START = {
    "run": ON_DIGITS.strip(),
    "study": "lr_search --dataset digits",
    "compare": "",
    "report": "baseline",
    "verify": "0" * 32,
    "sync": "",
    "ui": "",
    "bench": "",
}
"""Each command with what it needs before its flags."""

EVERY = " ".join(START)
WITHOUT_HEAVY_LIBRARIES = "compare report verify sync ui bench"

SAME_MISTAKE = {
    "unknown flag": (EVERY, "{} --unknown 3", "There is no flag --unknown."),
    "flag of tyro": (EVERY, "{} --tyro-print-completion bash", "There is no flag --tyro-print"),
    "nearest flag": ("run study verify bench", "{} --data-rot x", "Did you mean --data-root"),
    "repeated flag": (
        "run study verify bench",
        "{} --threads 1 --threads 2",
        "--threads is given 2 times; give it once.",
    ),
    "repeated switch": ("run study compare", "{} --help --help", "--help is given 2 times"),
    "no value": ("run study verify bench", "{} --threads", "--threads: the value is missing."),
    "no path": ("run study verify bench", "{} --data-root", "--data-root: the value is missing."),
    "no number": (
        "run study verify bench",
        "{} --threads x",
        "--threads: 'x' is not a whole number.",
    ),
    "out of bounds": (
        "run study verify bench",
        "{} --threads 9999",
        "threads: 9999 is not allowed, it must be at most 1024.",
    ),
    "null byte": (
        "run study verify bench",
        "{} --data-root a\0b",
        r"data_root: 'a\x00b' holds a null byte.",
    ),
    "surplus argument": ("run study report verify sync ui bench", "{} surplus", "surplus"),
    "switch with a value": ("run study verify", "{} --quiet=x", "There is no flag or argument x"),
    "no name": ("run study report", "", "Missing: NAME."),
    "no id": ("verify", "", "Missing: RUN."),
    "a flag in place of a name": ("run study", "--quick", "Missing: NAME."),
    "no record store": (
        "run study compare report verify sync ui",
        "{}",
        "MLFLOW_TRACKING_URI: 'nonsense' is not the URL of a record store.",
    ),
}
"""The commands that can make a mistake, its arguments after those of START, and the message."""


def same_mistakes(commands: str) -> list[tuple[str, Row]]:
    return [
        (mistake, Row(f"harness.{command}", tuple(words.format(START[command]).split()), message))
        for mistake, (makers, words, message) in SAME_MISTAKE.items()
        for command in makers.split()
        if command in commands.split()
    ]


def check_mistake(server: Server, mistake: str, row: Row) -> None:
    if mistake == "no record store":
        row = dataclasses.replace(row, environment={"MLFLOW_TRACKING_URI": "nonsense"})
    before = state(server.root)
    ended = server.answer(row)
    assert ended.status == 2, ended
    assert ended.output == ""
    assert ended.errors.startswith("error: ")
    assert row.message in ended.errors
    assert "Traceback" not in ended.errors
    if row.message.startswith("Missing"):
        assert f"usage: python -m {row.module} {row.message.strip('.').split()[-1]}" in ended.errors
    assert state(server.root) == before


@pytest.mark.parametrize(("mistake", "row"), same_mistakes(WITHOUT_HEAVY_LIBRARIES), ids=str)
def test_the_same_mistake_has_the_same_message_and_status(
    light: Server, mistake: str, row: Row
) -> None:
    check_mistake(light, mistake, row)


@pytest.mark.parametrize(("mistake", "row"), same_mistakes("run study"), ids=str)
def test_run_and_study_answer_a_mistake_like_all_others(
    loaded: Server, mistake: str, row: Row
) -> None:
    check_mistake(loaded, mistake, row)


@pytest.mark.parametrize("command", START)
def test_help_is_no_mistake(light: Server, loaded: Server, command: str) -> None:
    server = light if command in WITHOUT_HEAVY_LIBRARIES.split() else loaded
    for words in (["--help"], [*START[command].split(), "--help"]):
        ended = server.answer(Row(f"harness.{command}", tuple(words), ""))
        assert (ended.status, ended.errors) == (0, "")
        assert f"python -m harness.{command}" in ended.output


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("harness.compare", "--experiment nobody"),
        ("harness.ui", "--no-browser --experiment nobody"),
        ("harness.report", "nobody"),
    ],
)
def test_a_name_without_runs_is_refused_alike(finished: Recorded, module: str, words: str) -> None:
    checkout, _ = finished
    check(
        asked(module, "", "there are no runs of 'nobody'"), checkout.command(module, *words.split())
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("harness.run", "--resume"),
        ("harness.verify", ""),
        ("harness.compare", ""),
        ("harness.compare", "--against"),
    ],
)
def test_an_unknown_run_is_refused_alike(finished: Recorded, module: str, words: str) -> None:
    checkout, _ = finished
    unknown = "0123456789abcdef" * 2
    check(asked(module, "", unknown), checkout.command(module, *words.split(), unknown))


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("harness.report baseline", "--out"),
        ("harness.compare", "--csv"),
        ("harness.compare", "--json"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_alike(
    finished: Recorded, tmp_path: Path, module: str, flag: str
) -> None:
    checkout, _ = finished
    name, *words = module.split()
    for path in (tmp_path, tmp_path / "missing" / "x", tmp_path / ("y" * 5000)):
        ended = checkout.command(name, *words, flag, str(path))
        check(asked(name, "", "cannot be written: "), ended)
        assert ended.errors.startswith(f"error: {flag.removeprefix('--')}: {tmp_path}")


@pytest.mark.parametrize("command", [command for command in START if command != "bench"])
def test_a_store_that_cannot_be_opened_is_a_failure(checkout: Checkout, command: str) -> None:
    checkout.store.parent.mkdir()
    checkout.store.write_bytes(b"not a database " * 100)
    words = [*START[command].split(), *(["--no-browser"] if command == "ui" else [])]
    ended = checkout.command(f"harness.{command}", *words)
    assert ended.status == 1
    assert ended.errors.startswith("error: ")
    assert str(checkout.store) in ended.errors
    assert len(ended.errors.splitlines()) == 1
    assert not (checkout.root / "mlruns" / "checkpoints").exists()


@pytest.mark.parametrize("command", ["__main__", *START])
def test_every_command_ends_through_the_one_entry(command: str) -> None:
    """`enter` turns an interruption into 130 or 143; tests/cli/test_entry.py shows that it does."""
    source = (ROOT / "harness" / f"{command}.py").read_text(encoding="utf-8")
    assert source.endswith('\n\nif __name__ == "__main__":\n    entry.enter(main)\n')


# ---- through real processes ----


@pytest.mark.parametrize(
    "row", [AT_ONCE[0], AT_ONCE[16], BY_THEIR_FLAGS[0], BY_THEIR_CONTENT[20]], ids=str
)
def test_a_process_of_its_own_answers_the_same(checkout: Checkout, row: Row) -> None:
    check(row, checkout.command(row.module, *row.words, changes=row.environment))
    assert not (checkout.root / "mlruns").exists()


def test_a_run_that_is_not_there_or_has_finished_is_not_resumed(finished: Recorded) -> None:
    checkout, ended = finished
    before = state(checkout.root)
    for run_id, message in (
        ("0" * 32, f"resume: there is no run '{'0' * 32}' here"),
        (ended.run_id, "nothing is left"),
        (ended.run_id[:8], "nothing is left"),
    ):
        check(
            asked("harness.run", f"--resume {run_id}", message),
            checkout.run("--resume", run_id),
        )
    assert state(checkout.root) == before


@pytest.mark.parametrize("module", ["harness", "harness.run", "harness.study"])
def test_a_list_goes_into_a_pipe_that_closes(checkout: Checkout, module: str) -> None:
    command = f"{sys.executable} -m {module} --help | head -1"
    piped = subprocess.run(
        ["sh", "-c", command],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(piped.stdout.splitlines()) == 1
    assert piped.stderr == ""


@pytest.mark.parametrize("end", [">&-", "> /dev/full", ">&- 2>&-"])
def test_what_cannot_be_printed_at_all_is_no_traceback(checkout: Checkout, end: str) -> None:
    command = f"{sys.executable} -m harness {end}; echo status $?"
    ended = subprocess.run(
        ["sh", "-c", command],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout in ("status 0\n", "status 1\n")
    assert "Traceback" not in ended.stderr
    assert (end == "> /dev/full") <= (ended.stdout == "status 1\n")


def test_a_folder_that_may_not_be_written_is_named(checkout: Checkout) -> None:
    folder = checkout.root / "mlruns"
    folder.mkdir(mode=0o500)
    for module in ("harness.run softmax_regression", "harness.study lr_search"):
        command = [sys.executable, "-m", *module.split(), "--dataset", "digits", "--threads", "1"]
        ended = subprocess.run(
            [*bound_by_file_modes(), *command],
            cwd=checkout.root,
            env=checkout.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        row = asked("harness", "", "its folder is not writable", 1)
        check(row, Ended(ended.returncode, ended.stdout, ended.stderr, 0))
    assert list(folder.iterdir()) == []


# ---- any words ----

FLAGS = ["--lr", "--seed", "--tag", "--dataset", "--quiet", "--no-figures", "--data-root", "--help"]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(["0", "-1", "nan", "1e999", "digits", "a=b", "--", "-", "=", "--=", "true"]),
    st.text(max_size=8),
    st.builds("{}={}".format, st.sampled_from(FLAGS), st.text(max_size=5)),
)


@settings(max_examples=60)
@given(words=st.lists(WORDS, max_size=5))
def test_any_words_are_a_request_or_refused_in_a_few_words(words: list[str]) -> None:
    try:
        experiment, chosen = flags.parse(Baseline, RunSettings, words, "program", "description")
    except BadRequest as refusal:
        assert 0 < len(str(refusal)) < 6000  # noqa: PT017
    except SystemExit as ended:
        assert not ended.code  # noqa: PT017
        assert "--help" in words or "-h" in words
    else:
        assert isinstance(experiment, Baseline)
        assert isinstance(chosen, RunSettings)


@settings(max_examples=50)
@given(
    name=st.text(max_size=20),
    words=st.lists(WORDS, max_size=3),
    command=st.sampled_from([run, study]),
)
def test_any_name_is_refused(name: str, words: list[str], command: Any) -> None:
    known = {*discovery.names("experiments"), *discovery.names("studies"), "-h", "--help"}
    if name not in known:
        with pytest.raises(BadRequest):
            command.main([name, *words])
