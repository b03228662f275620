"""Kills and damages at random moments, and checks after each that nothing is lost.

    python tests/soak.py --rounds 200 --jobs 2

Each round does one thing (a run, a study, a run on a tracking server or in a container) and
disturbs it at random moments: kills its processes, deletes or locks its database, plants foreign
checkpoints. It goes on as a user would until it is done, and holds the record against that of an
undisturbed one. Prints what it did, and ends with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from conftest import Checkout, Server, processes_in
from mlflow import MlflowClient
from mlflow.entities import Run

from harness.training import checkpoint

RUN = ("dropout_mlp", "--dataset", "digits", "--threads", "1", "--num-epochs", "12", "--no-figures")
STUDY = (
    *("init_std_search", "--dataset", "digits", "--num-epochs", "2", "--threads", "1"),
    *("--n-trials", "5", "--confirm-seeds", "1"),
)
MODULES = (
    "harness.run",
    "harness.study",
    "harness.workers.worker",
    "harness.tracking.recorder_process",
)

WEIGHTS = {
    **{"run": 5, "study": 3, "server": 1},
    **{"container": 2, "deleted": 2, "locked": 1, "checkpoint": 2},
}
"""How often each kind of round is drawn."""

CONTAINER = ("unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
"""What stands before a command so that it has process ids and a host name of its own."""

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

MOST_ATTEMPTS = 12
"""Times that a round goes on before it is given up as never ending."""


class Broken(AssertionError):
    """A promise was broken: the message says which."""


class Soak:
    """One checkout and its store, in which rounds follow each other."""

    def __init__(
        self, root: Path, rng: random.Random, tally: Counter[str], kinds: Sequence[str]
    ) -> None:
        self.checkout = Checkout.copied_to(root / "checkout")
        self.kinds = kinds
        self.rng = rng
        self.tally = tally
        self.server = Server.new(root / "server")
        self.environment: dict[str, str] = {}
        self.deletions = 0
        if set(kinds) - {"study"}:
            started = time.monotonic()
            reference = self.checkout.run(*RUN)
            self.run_seconds = time.monotonic() - started
            self.expected = self.numbers(reference.run_id)
            self.foreign = root / "foreign"
            other = self.checkout.run(*RUN, "--seed", "1")
            shutil.copytree(self.checkpoints(other.run_id), self.foreign)
        if "study" in kinds:
            started = time.monotonic()
            self.checkout.command("harness.study", *STUDY, "--study-name", "reference")
            self.study_seconds = time.monotonic() - started
            self.expected_trials = self.trials("reference")

    def round(self, number: int) -> None:
        """One round of a kind drawn at random."""
        disturb: dict[str, Callable[[str], None]] = {
            "run": self.disturb_a_run,
            "study": self.disturb_a_study,
            "server": self.disturb_a_server,
            "container": self.end_a_container,
            "deleted": self.delete_a_store,
            "locked": self.lock_a_database,
            "checkpoint": self.plant_checkpoints,
        }
        kind = self.rng.choices(self.kinds, [WEIGHTS[kind] for kind in self.kinds])[0]
        self.tally["rounds"] += 1
        self.tally[kind] += 1
        disturb[kind](f"round {number}")
        self.nothing_is_open()

    def disturb_a_run(self, name: str) -> None:
        """Kill a run up to three times, resume it, and compare every number."""
        words: tuple[str, ...] = (*RUN, "--run-name", name)
        kills = self.rng.randint(1, 3)
        for attempt in range(MOST_ATTEMPTS):
            self.disturbed("harness.run", words, self.run_seconds, attempt < kills)
            found = self.named(name)
            # A signal in the last moment is answered by the exit status, and stops nothing.
            if found and found[0].data.tags["harness.outcome"] == "completed":
                break
            words = ("--resume", "last") if found else (*RUN, "--run-name", name)
            self.tally["resumes"] += bool(found)
        else:
            raise Broken(f"{name} never came to its end")
        self.as_expected(found)

    def disturb_a_server(self, name: str) -> None:
        """Stop the server under a run, and perhaps kill the run too; then sync and resume."""
        self.server.start()
        self.environment = {"MLFLOW_TRACKING_URI": self.server.uri}
        try:
            words: tuple[str, ...] = (*RUN, "--run-name", name)
            with self.started("harness.run", words) as process:
                # The server goes away during the epochs: before, the run would refuse to start.
                assert process.stdout
                for _ in range(self.rng.randint(1, 6)):
                    process.stdout.readline()
                self.server.stop()
                self.tally["kills"] += 1
                if self.rng.random() < 0.5:
                    time.sleep(self.rng.uniform(0, 0.5))
                    self.kill(process)
                process.communicate(timeout=120)
            self.server.start()
            for _ in range(MOST_ATTEMPTS):
                if self.checkout.command("harness.sync", changes=self.environment).status:
                    raise Broken("sync left something, with the server back")
                (found,) = self.named(name)
                if found.data.tags["harness.outcome"] == "completed":
                    break
                self.tally["resumes"] += 1
                self.checkout.run("--resume", "last", "--quiet", changes=self.environment)
            self.as_expected([found])
            self.nothing_is_open()
            if list((self.checkout.root / "mlruns" / "spool").glob("*/*/*.json")):
                raise Broken("writes are left in the spool")
        finally:
            self.environment = {}
            self.server.stop()

    def end_a_container(self, name: str) -> None:
        """End the container of a run, and take over what cannot be judged from outside."""
        words = (*RUN, "--run-name", name)
        container = subprocess.Popen(
            [*CONTAINER, sys.executable, "-m", "harness.run", *words],
            cwd=self.checkout.root,
            env=self.checkout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(self.rng.uniform(0, self.run_seconds))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(container.pid, signal.SIGKILL)
        self.tally["kills"] += 1
        container.wait()
        self.wait_until_all_have_ended()
        found = self.named(name)
        if not found:
            self.checkout.run(*words)
        elif found[0].info.status == "RUNNING":
            run_id = found[0].info.run_id
            listed = self.checkout.command("harness.sync").output
            if f"--resume {run_id} --take-over" not in listed:
                raise Broken(f"sync does not list the run of an ended container: {listed}")
            self.tally["resumes"] += 1
            self.checkout.run("--resume", run_id, "--take-over", "--quiet")
        self.as_expected(self.named(name))

    def delete_a_store(self, name: str) -> None:
        """Delete the database, or all records, under a run; it notices, and can be resumed."""
        mlruns = self.checkout.store.parent
        self.deletions += 1
        with self.after_some_epochs(name) as process:
            if self.rng.random() < 0.5:
                for path in mlruns.glob("mlflow.db*"):
                    path.unlink(missing_ok=True)
            else:
                # Others may be making files in it.
                while mlruns.exists():
                    shutil.rmtree(mlruns, ignore_errors=True)
            output, _ = process.communicate(timeout=120)
        if process.returncode != 1 or "Recorded anew" not in output:
            raise Broken(f"a lost record ended with {process.returncode}: {output[-500:]}")
        self.tally["resumes"] += 1
        resumed = self.checkout.run("--resume", "last", "--quiet")
        if resumed.status:
            raise Broken(f"{output[-300:]}\nwas not resumed: {resumed.errors[-500:]}")
        self.as_expected(self.named(name))

    def lock_a_database(self, name: str) -> None:
        """Lock the database under a run, for less or more than MLflow waits by itself."""
        with self.after_some_epochs(name) as process:
            with contextlib.closing(
                sqlite3.connect(self.checkout.store, timeout=60, isolation_level=None)
            ) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                time.sleep(self.rng.uniform(0, 30))
            output, _ = process.communicate(timeout=180)
        if process.returncode:
            raise Broken(f"a locked database ended the run: {output[-500:]}")
        self.as_expected(self.named(name))

    def plant_checkpoints(self, name: str) -> None:
        """Kill a run, and put others' and damaged checkpoints where its own are."""
        with self.after_some_epochs(name):
            pass  # it is killed on the way out
        self.wait_until_all_have_ended()
        (run,) = self.named(name)
        folder = self.checkpoints(run.info.run_id)
        for _ in range(self.rng.randint(1, 3)):
            match self.rng.choice(("foreign", "cut", "retyped", "history")):
                case "foreign":
                    theirs = self.rng.choice(checkpoint.latest_first(self.foreign))
                    shutil.copy(theirs, checkpoint.path_of(folder, self.rng.randint(1, 12)))
                    if self.rng.random() < 0.5:
                        shutil.copy(self.foreign / "history.jsonl", folder)
                case "cut":
                    path = self.rng.choice(checkpoint.latest_first(folder))
                    path.write_bytes(path.read_bytes()[: -self.rng.randint(1, 500)])
                case "retyped":
                    path = checkpoint.latest_first(folder)[0]
                    with contextlib.suppress(checkpoint.CheckpointDamaged):
                        saved = checkpoint.load(path)
                        state = saved.state()
                        state["network"] = {k: v.double() for k, v in state["network"].items()}
                        content = checkpoint.encode(state)
                        checkpoint.save(path, dataclasses.replace(saved, content=content))
                case "history":
                    with (folder / "history.jsonl").open("r+b") as file:
                        file.truncate(self.rng.randint(0, 300))
        self.tally["resumes"] += 1
        resumed = self.checkout.run("--resume", run.info.run_id, "--quiet")
        if resumed.status:
            raise Broken(f"it could not be resumed: {resumed.errors[-500:]}")
        self.as_expected(self.named(name))

    @contextlib.contextmanager
    def after_some_epochs(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """A run at work that has some epochs left."""
        with self.started("harness.run", (*RUN, "--run-name", name)) as process:
            assert process.stdout
            for _ in range(self.rng.randint(1, 8)):
                process.stdout.readline()
            yield process

    def checkpoints(self, run_id: str) -> Path:
        return self.checkout.root / "mlruns" / "checkpoints" / run_id

    def disturb_a_study(self, name: str) -> None:
        """Kill launcher, workers or recorder, go on with the same command, and count."""
        workers = self.rng.choice(("1", "2"))
        words = (*STUDY, "--study-name", name, "--workers", workers)
        kills = self.rng.randint(1, 2)
        before: dict[int, Any] = {}
        for attempt in range(MOST_ATTEMPTS):
            status = self.disturbed("harness.study", words, self.study_seconds, attempt < kills)
            now = {number: value for number, value in self.finished(name).items()}
            if changed := {n: v for n, v in before.items() if now.get(n, "gone") != v}:
                raise Broken(f"finished trials changed: {changed}")
            before = now
            if status == 0:
                break
            self.tally["resumes"] += 1
        else:
            raise Broken(f"{name} never came to its end")
        if len(before) != 5:
            raise Broken(f"{len(before)} trials instead of 5 were finished")
        if workers == "1" and self.trials(name) != self.expected_trials:
            raise Broken(f"other trials than those of an undisturbed study: {self.trials(name)}")
        recorded = Counter(
            run.data.tags["harness.outcome"]
            for run in self.runs()
            if run.data.tags["harness.kind"] == "trial"
            and run.data.tags["mlflow.parentRunId"] == self.stored(name).user_attrs["run_id"]
        )
        if recorded["completed"] + recorded["pruned"] + recorded["collapsed"] != 5:
            raise Broken(f"the record of the trials says otherwise than their study: {recorded}")

    def disturbed(self, module: str, words: tuple[str, ...], seconds: float, kill: bool) -> int:
        """Run a command, kill some of its processes at a random moment, wait for all to end."""
        with self.started(module, words) as process:
            if kill:
                time.sleep(self.rng.uniform(0, seconds))
                self.kill(process)
            process.communicate(timeout=180)
        self.wait_until_all_have_ended()
        return int(process.returncode)

    def wait_until_all_have_ended(self) -> None:
        deadline = time.monotonic() + 60
        while processes_in(self.checkout.root, MODULES):
            if time.monotonic() > deadline:
                raise Broken("processes are left behind")
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill one of the processes at work, or all of them at once."""
        victims = processes_in(self.checkout.root, MODULES)
        chosen = self.rng.choice([[process.pid], victims, [self.rng.choice(victims or [0])]])
        number = self.rng.choice(SIGNALS)
        for pid in filter(None, chosen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self.tally["kills"] += 1

    @contextlib.contextmanager
    def started(self, module: str, words: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
        """A command at work."""
        process = self.checkout.start(
            module, *words, changes=self.environment, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @property
    def client(self) -> MlflowClient:
        # MLflow keeps its connections to a deleted file: another address of it has none.
        uri = f"sqlite:///{'/' * self.deletions}{self.checkout.store}"
        return MlflowClient(self.environment.get("MLFLOW_TRACKING_URI", uri))

    def runs(self) -> list[Run]:
        """Every run of the store."""
        if not self.environment and not self.checkout.store.exists():
            return []
        found = [e.experiment_id for e in self.client.search_experiments()]
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(found, page_token=token)
            runs += page
            if not (token := page.token):
                return runs

    def named(self, name: str) -> list[Run]:
        """The runs of a name: one at most."""
        found = [run for run in self.runs() if run.info.run_name == name]
        if len(found) > 1:
            raise Broken(f"there are {len(found)} runs of {name}")
        return found

    def numbers(self, run_id: str) -> dict[str, Any]:
        """All numbers of a run that a repetition must give again, and its weights."""
        run = self.client.get_run(run_id)
        numbers: dict[str, Any] = {"weights": run.data.tags.get("harness.weights_sha256")}
        for name in run.data.metrics:
            if not name.startswith(("time/", "memory/", "model/")):
                history = self.client.get_metric_history(run_id, name)
                numbers[name] = sorted((metric.step, metric.value) for metric in history)
        return numbers

    def as_expected(self, found: list[Run]) -> None:
        """The run ended well, with the numbers of an undisturbed one."""
        (run,) = found
        ended = (run.info.status, run.data.tags["harness.outcome"])
        if ended != ("FINISHED", "completed"):
            raise Broken(f"the run has ended as {ended}")
        if (numbers := self.numbers(run.info.run_id)) != self.expected:
            different = [name for name in self.expected if numbers.get(name) != self.expected[name]]
            raise Broken(f"other numbers than an undisturbed run: {different}")

    def nothing_is_open(self) -> None:
        """Nothing is RUNNING, once the next command has looked where something is."""
        if self.open_runs() or self.open_trials():
            self.checkout.command("harness.sync", changes=self.environment)
        if still := self.open_runs() + self.open_trials():
            raise Broken(f"still RUNNING: {still}")

    def open_runs(self) -> list[str]:
        return [run.info.run_name for run in self.runs() if run.info.status == "RUNNING"]

    def open_trials(self) -> list[str]:
        storage = f"sqlite:///{self.checkout.root}/mlruns/optuna.db"
        if not (self.checkout.root / "mlruns" / "optuna.db").exists():
            return []
        return [
            f"trial {trial.number} of {name}"
            for name in optuna.get_all_study_names(storage)
            for trial in self.stored(name).trials
            if trial.state.name == "RUNNING"
        ]

    def stored(self, name: str) -> optuna.Study:
        storage = f"sqlite:///{self.checkout.root}/mlruns/optuna.db"
        return optuna.load_study(study_name=name, storage=storage)

    def finished(self, name: str) -> dict[int, Any]:
        """Value by number of the trials that count; none where the study was not begun."""
        with contextlib.suppress(KeyError):
            return {
                trial.number: trial.value
                for trial in self.stored(name).trials
                if trial.state.is_finished() and trial.user_attrs.get("outcome") != "interrupted"
            }
        return {}

    def trials(self, name: str) -> list[Any]:
        """Parameters and values of the finished trials, in a fixed order."""
        numbers = self.finished(name)
        trials = [trial for trial in self.stored(name).trials if trial.number in numbers]
        return sorted((sorted(trial.params.items()), str(trial.value)) for trial in trials)


def main() -> int:
    """Soak; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description="Kill things at random moments, and check.")
    parser.add_argument("--rounds", type=int, default=200, help="rounds in all")
    parser.add_argument("--jobs", type=int, default=2, help="checkouts at work at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn")
    parser.add_argument("--only", choices=WEIGHTS, help="rounds of this kind alone")
    arguments = parser.parse_args()
    kinds = [arguments.only] if arguments.only else list(WEIGHTS)
    if "container" in kinds and subprocess.call([*CONTAINER, "true"], stderr=subprocess.DEVNULL):
        print("no containers: namespaces cannot be made here")
        kinds.remove("container")
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tally: Counter[str] = Counter()
    broken: list[str] = []
    numbers = iter(range(arguments.rounds))
    lock = threading.Lock()
    started = time.monotonic()

    def work(job: int, root: Path) -> None:
        soak = Soak(root, random.Random(f"{arguments.seed} {job}"), tally, kinds)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                soak.round(number)
            except Exception as error:
                broken.append(f"round {number}: {type(error).__name__}: {error}")
                print(broken[-1], flush=True)
                # Not copied by this process: closing a file ends its locks on the database.
                kept = [
                    "cp",
                    "-r",
                    str(soak.checkout.root / "mlruns"),
                    str(root / f"broken {number}"),
                ]
                subprocess.run(kept, check=True)
            if number % 10 == 9:
                print(f"{told(tally)}, {len(broken)} broken promises", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    threads = []
    for job in range(arguments.jobs):
        (folder / str(job)).mkdir()
        threads.append(threading.Thread(target=work, args=(job, folder / str(job))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    minutes = (time.monotonic() - started) / 60
    print(f"{told(tally)} in {minutes:.1f} min, seed {arguments.seed}")
    print(
        f"{len(broken)} broken promises (mismatches and losses)"
        + (f", see {folder}" if broken else "")
    )
    if not broken:
        shutil.rmtree(folder)
    return 1 if broken else 0


def told(tally: Counter[str]) -> str:
    """What was done so far, in one line."""
    words = ("rounds", *WEIGHTS, "kills", "resumes")
    return ", ".join(f"{word} {tally[word]}" for word in words)


if __name__ == "__main__":
    sys.exit(main())
