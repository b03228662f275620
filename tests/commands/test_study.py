"""Studies as a user meets them: declared, run, watched, stopped in every way and continued."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from conftest import Checkout, Ended, children_of
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

import studies
from experiments.baseline import Baseline
from harness import FloatDistribution, IntDistribution, Study
from harness.base import project
from harness.base.errors import BadRequest
from harness.base.goals import Goal
from harness.cli import study_progress
from harness.search.confirmations import Confirmation
from harness.search.opening import open_study
from harness.search.storage import load_stored, storage_url
from harness.search.study import edge_warnings, load_study
from harness.search.trial_queue import Counts, Search, claim, tell
from harness.workers.progress import StudyProgress, TrainingEnded
from harness.workers.study_answer import StudyAnswer, study_answer

if TYPE_CHECKING:
    from mlflow.entities import Run

QUICK = ("--dataset", "digits", "--num-epochs", "2", "--threads", "1")

ONE_WORKER = (*QUICK, "--workers", "1")

ENDED = re.compile(r"^\[(\d+)/\d+\] trial \d+", re.MULTILINE)

SMALL_SEARCH = '''"""Two numbers, few trials."""

from experiments.baseline import Baseline
from harness import FloatDistribution, IntDistribution, Study

study = Study(
    experiment=Baseline(dataset="digits", num_epochs=3),
    space={
        "lr": FloatDistribution(1e-2, 1.0, log=True),
        "hidden_width": IntDistribution(16, 64),
    },
    n_trials=14,
)
'''

FRAGILE = '''"""Trains, prints, raises or diverges as it is told."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from harness import Experiment


class Fragile(Experiment):
    mode: Literal["fine", "raises", "diverges"] = "fine"
    hidden_width: int = 16

    def network(self):
        print("an experiment that prints")
        if self.mode == "raises" or Path(__file__).with_name("broken").exists():
            raise ValueError("as it was told")
        return nn.Sequential(nn.Flatten(), nn.Linear(784, self.hidden_width), nn.ReLU(),
                             nn.Linear(self.hidden_width, 10))

    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=1e30 if self.mode == "diverges" else self.lr)
'''

DEAF = '''"""Swallows whatever comes while its network is built, as the import of a library may."""

import time
from pathlib import Path

from experiments.baseline import Baseline


class Deaf(Baseline):
    def network(self):
        Path(__file__).with_name("building").touch()
        try:
            time.sleep(60)
        except BaseException:
            pass
        return super().network()
'''

DEAF_SEARCH = '''"""One trial."""

from experiments.deaf import Deaf
from harness import FloatDistribution, Study

study = Study(
    experiment=Deaf(dataset="digits", num_epochs=1),
    space={"lr": FloatDistribution(0.01, 1)},
    n_trials=1,
)
'''

FRAGILE_SEARCH = '''"""Every way in which a trial can end."""

from experiments.fragile import Fragile
from harness import Study


def suggest(trial):
    mode = trial.suggest_categorical("mode", ["fine", "raises", "diverges"])
    wide = trial.suggest_categorical("wide", [True, False])
    width = trial.suggest_int("hidden_width", 20, 64) if wide else 16
    return {"mode": mode, "hidden_width": width}


study = Study(experiment=Fragile(), suggest=suggest, n_trials=9)
'''


def run(checkout: Checkout, *arguments: str) -> Ended:
    return checkout.command("harness.study", *arguments)


@contextlib.contextmanager
def running(checkout: Checkout, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A study while it runs; whatever is left of it in the end is killed."""
    process = checkout.start(
        "harness.study", *arguments, **{"stderr": subprocess.STDOUT, **streams}
    )
    try:
        yield process
    finally:
        for pid in [process.pid, *processes(checkout, "harness")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def processes(checkout: Checkout, module: str) -> list[int]:
    """The living processes in a checkout that run a module."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            here = (folder / "cwd").resolve() == checkout.root.resolve()
            if here and any(word.startswith(module.encode()) for word in words):
                found.append(int(folder.name))
    return found


def workers_of(checkout: Checkout, launcher: subprocess.Popen[str]) -> list[int]:
    """The living workers of a launcher: they are forked from it, and have its command line."""
    return sorted(set(children_of(launcher.pid)) & set(processes(checkout, "harness.study")))


def wait_until(true: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def read_until(process: subprocess.Popen[str], pattern: re.Pattern[str]) -> str:
    """Lines of a command up to one that matches."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if pattern.search(line):
            break
    else:
        raise AssertionError("".join(lines))
    return "".join(lines)


def stored(checkout: Checkout, name: str) -> optuna.Study:
    return load_stored(f"sqlite:///{checkout.root}/mlruns/optuna.db", name)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, in the order in which they ended."""
    trials = [
        t for t in study.get_trials() if t.user_attrs.get("outcome") not in (None, "interrupted")
    ]
    return sorted(trials, key=lambda trial: str(trial.datetime_complete))


def of_kind(checkout: Checkout, kind: str, name: str) -> list[Run]:
    with checkout.opened() as client:
        experiment = client.get_experiment_by_name(name)
    assert experiment
    return [
        run
        for run in checkout.runs()
        if run.data.tags["harness.kind"] == kind
        and run.info.experiment_id == experiment.experiment_id
    ]


def one_run(checkout: Checkout, name: str) -> Run:
    (found,) = of_kind(checkout, "study", name)
    return found


def artifacts(checkout: Checkout, run_id: str) -> dict[str, Path]:
    (folder,) = (checkout.root / "mlruns" / "artifacts").glob(f"*/{run_id}/artifacts")
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def steps(checkout: Checkout, run_id: str, metric: str) -> list[int]:
    with checkout.opened() as client:
        return [entry.step for entry in client.get_metric_history(run_id, metric)]


def check_both_stores_agree(checkout: Checkout, name: str) -> None:
    """Every trial has one run, which says the same; nothing is open; each epoch is there once."""
    trials = stored(checkout, name).get_trials()
    assert {trial.state for trial in trials} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    }
    runs = {run.info.run_id: run for run in of_kind(checkout, "trial", name)}
    parent = one_run(checkout, name)
    status = {"completed": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED"}
    for trial in trials:
        # A process may die between its claim and its run.
        if "run_id" not in trial.user_attrs and trial.user_attrs["outcome"] == "interrupted":
            continue
        run = runs.pop(trial.user_attrs["run_id"])
        outcome = trial.user_attrs["outcome"]
        assert run.data.tags["harness.outcome"] == outcome
        assert run.info.status == status.get(outcome, "FAILED")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["harness.trial"] == str(trial.number)
        for field in run.data.params.keys() & trial.params.keys():
            assert run.data.params[field] == str(trial.params[field])
            assert f"{field}=" in run.info.run_name
        recorded = steps(checkout, run.info.run_id, "validation/accuracy")
        assert recorded == list(range(1, len(recorded) + 1))
        if outcome != "interrupted":
            assert len(recorded) == (trial.last_step or 0)
        assert not any(metric.startswith("test/") for metric in run.data.metrics)
    for run in runs.values():  # died between its run and its claim's note of it
        assert run.data.tags["harness.outcome"] == "interrupted"


# Declarations


def test_the_list_needs_no_library(checkout: Checkout) -> None:
    program = (
        "import sys; from harness.cli import listing; print(listing.of_folder('studies'));"
        "from harness import study;"
        "print(sorted({'torch', 'optuna', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    listed = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout.root, capture_output=True, text=True
    )
    assert listed.returncode == 0
    assert listed.stdout.endswith("[]\n")
    for name in ("lr_search", "joint_search"):
        assert re.search(rf"^  {name} +\S", listed.stdout, re.MULTILINE)


def test_an_unknown_name_is_answered_with_the_nearest(checkout: Checkout) -> None:
    ended = run(checkout, "lr_serch")
    assert ended.status == 2
    assert ended.errors == (
        "error: There is no study 'lr_serch' in studies/. Did you mean lr_search or joint_search?\n"
    )
    assert ended.output == ""
    assert ended.seconds < 3


IMPORTS = (
    "from experiments.baseline import Baseline\n"
    "from harness import CategoricalDistribution, FloatDistribution, IntDistribution, Study\n"
)


def space(text: str) -> str:
    return f"{IMPORTS}study = Study(experiment=Baseline(), space={{{text}}})\n"


def suggesting(text: str) -> str:
    return (
        f"{IMPORTS}def suggest(trial):\n    {text}\n"
        "study = Study(experiment=Baseline(), suggest=suggest)\n"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("study = Study(\n", "cannot be imported: '(' was never closed (line 1)"),
        ("", "expected a Study called"),
        (space("'lr': FloatDistribution(0.1, 1)") + "other = study\ndel study\n"
         "more = Study(experiment=Baseline(), space=other.space, n_trials=3)", "found 2"),
        ("1 / 0", "ZeroDivisionError"),
        (space("'learning': FloatDistribution(0.1, 1)"), "no field 'learning'"),
        (space("'hiden_width': IntDistribution(16, 32)"), "Did you mean hidden_width?"),
        (space("'lr': FloatDistribution(-1, 1)"), "lr: -1.0 is not allowed"),
        (space("'lr': FloatDistribution(0, 1)"), "it must be greater than 0"),
        (space("'hidden_width': IntDistribution(0, 32)"), "hidden_width: 0 is not allowed"),
        (space("'hidden_width': FloatDistribution(16, 32)"), "16.0 is not a whole number"),
        (space("'batch_size': CategoricalDistribution([256, 0])"), "batch_size: 0 is not allowed"),
        (space("'batch_size': CategoricalDistribution([256, '64'])"), "is not a whole number"),
        (space("'batch_size': CategoricalDistribution([32, 64])"), "own value 256, which is"),
        (space("'lr': (0.1, 1.0)"), "cannot use the distribution tuple"),
        (space("'dataset': CategoricalDistribution(['fashion-mnist', 'mnist'])"),
         "dataset cannot be searched"),
        (space("'split_seed': IntDistribution(1, 20)"), "split_seed cannot be searched"),
        (space(""), "needs either a space"),
        (IMPORTS + "study = Study(experiment=Baseline, space={'lr': FloatDistribution(.1, 1)})",
         "expected an experiment with its values"),
        (IMPORTS + "study = Study(experiment=Baseline(), space={'lr': FloatDistribution(.1, 1)}, "
         "n_trials=0)", "n_trials: 0 is not allowed"),
        (suggesting("return {'lr': trial.suggest_float('lr', -1, 1)}"), "lr: -0."),
        (suggesting("return {'rate': trial.suggest_float('lr', 0.1, 1)}"), "no field 'rate'"),
        (suggesting("return {'split_seed': trial.suggest_int('split_seed', 1, 20)}"),
         "split_seed cannot be searched"),
        (suggesting("trial.suggest_float('lr', 0.1, 1)"), "must return a dict of field values"),
        (suggesting("return {'lr': trial.suggest('lr')}"), "suggest(trial) fails: AttributeError"),
        (suggesting("return {'lr': 10 ** trial.suggest_float('log_lr', -3, -2)}"),
         "never returns the experiment's own values"),
    ],
)  # fmt: skip
def test_a_bad_study_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "broken.py").write_text(source)
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    monkeypatch.setattr(studies, "__path__", [str(tmp_path / "studies")])
    monkeypatch.delitem(sys.modules, "studies.broken", raising=False)
    with pytest.raises(BadRequest) as refusal:
        load_study("broken")
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_what_is_refused_and_what_is_only_looked_at_touches_no_store(checkout: Checkout) -> None:
    file = checkout.root / "studies" / "bad_search.py"
    file.write_text(space("'lr': FloatDistribution(-1, 1)"))
    refused = run(checkout, "bad_search")
    assert (refused.status, refused.output) == (2, "")
    assert refused.errors.startswith("error: studies/bad_search.py")
    assert refused.errors.count("\n") <= 2
    file.unlink()

    looked_at = run(checkout, "joint_search", *QUICK, "--dry-run", "--n-trials", "7")
    assert looked_at.status == 0
    for words in (
        "search lr",
        "0.01 to 1.0, logarithmic",
        "7 trials of 2 epochs",
        "1,198 for training",
    ):
        assert words in looked_at.output
    assert looked_at.errors == ""
    assert not (checkout.root / "mlruns").exists()


# From end to end


def test_a_study_is_searched_recorded_and_confirmed(checkout: Checkout) -> None:
    command = (
        *("joint_search", *QUICK, "--n-trials", "21", "--pruner", "none"),
        *("--workers", "2", "--confirm-seeds", "3"),
    )
    ended = run(checkout, *command)
    assert (ended.status, ended.errors) == (0, "")
    assert [int(n) for n in ENDED.findall(ended.output)] == sorted(
        int(n) for n in ENDED.findall(ended.output)
    )
    assert len(ENDED.findall(ended.output)) == 21
    assert "\x1b" not in ended.output

    study = stored(checkout, "joint_search")
    trials = counted(study)
    assert len(trials) == 21
    assert {t.user_attrs["outcome"] for t in trials} == {"completed"}
    assert len({str(t.params) for t in trials}) == 21
    assert len({t.user_attrs["owner"] for t in trials}) == 1, "one process claims"
    assert {t.user_attrs["worker"] for t in trials} == {0, 1}
    defaults = Baseline()
    assert study.trials[0].params == {name: getattr(defaults, name) for name in trials[0].params}
    check_both_stores_agree(checkout, "joint_search")

    parent = one_run(checkout, "joint_search")
    assert parent.info.run_id == ended.run_id
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "joint_search"
    best = max(trials, key=lambda trial: (trial.value or 0, -trial.number))
    assert parent.data.metrics["study/best_value"] == best.value
    assert parent.data.metrics["study/completed"] == 21
    assert parent.data.metrics["study/trials_per_hour"] > 100
    recorded = steps(checkout, parent.info.run_id, "study/completed")
    assert recorded == sorted(set(recorded)), "once for each number of finished trials"
    assert len(recorded) > 10
    assert recorded[-1] == 21

    found = artifacts(checkout, parent.info.run_id)
    figures = {"optimization_history", "slices", "learning_curves", "parallel_coordinates"}
    figures |= {"importances", "confirmation"}
    assert {f"figures/{name}.png" for name in figures} <= found.keys()
    for name in figures:
        head = found[f"figures/{name}.png"].read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", head[16:])
        assert width >= 600
        assert height >= 250
    assert len(found["trials.csv"].read_text().splitlines()) == 22
    check_confirmation(checkout, json.loads(found["study.json"].read_text()), parent, best, ended)

    again = run(checkout, *command)
    assert again.status == 0
    assert again.output.startswith("joint_search has finished already")
    assert again.output.endswith(ended.output[ended.output.index("joint_search: 21 of 21") :])
    assert len(checkout.runs()) == 1 + 21 + 6

    longer = run(checkout, *("22" if word == "21" else word for word in command))
    assert longer.status == 0
    assert len(counted(stored(checkout, "joint_search"))) == 22
    assert one_run(checkout, "joint_search").info.run_id == ended.run_id

    refused = run(checkout, *command, "--batch-size", "64")
    assert refused.status == 2
    assert "batch_size was 256, is 64" in refused.errors
    assert "--warm-start joint_search" in refused.errors


def check_confirmation(
    checkout: Checkout, summary: dict[str, Any], parent: Run, best: FrozenTrial, ended: Ended
) -> None:
    """The same seeds, all training examples, one look at the test set; the numbers recomputed."""
    runs = of_kind(checkout, "confirm", "joint_search")
    accuracies: dict[str, dict[int, float]] = {"best": {}, "defaults": {}}
    for run in runs:
        config, seed = run.data.tags["harness.config"], int(run.data.params["seed"])
        accuracies[config][seed] = run.data.metrics["test/accuracy"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["validation_size"] == "0"
        assert steps(checkout, run.info.run_id, "test/accuracy") == [2]
        assert steps(checkout, run.info.run_id, "train/accuracy") == [1, 2]
        if config == "best":
            expected = {name: str(value) for name, value in best.params.items()}
            assert run.data.params.items() >= expected.items()
        assert run.inputs
        profiles = [str(entry.dataset.profile) for entry in run.inputs.dataset_inputs]
        assert sorted(json.loads(text)["num_examples"] for text in profiles) == [360, 1437]
    assert [sorted(found) for found in accuracies.values()] == [[1, 2, 3]] * 2
    for config, found in accuracies.items():
        assert summary["confirmed"][config]["values"]["test/accuracy"] == {
            str(k): v for k, v in found.items()
        }

    differences = [accuracies["best"][seed] - accuracies["defaults"][seed] for seed in (1, 2, 3)]
    mean = statistics.fmean(differences)
    recorded = {
        name: parent.data.metrics[f"confirm/difference/{name}"] for name in ("mean", "low", "high")
    }
    assert recorded["mean"] == pytest.approx(mean, abs=1e-12)
    # It is wider than one over the seeds alone could be: it holds other test examples too.
    seeds_alone = stats.sem(differences)
    assert recorded["high"] - recorded["low"] > 2 * 1.9 * seeds_alone
    assert f"{100 * mean:+.2f} points of test accuracy" in ended.output
    assert "over seeds and test examples, n = 3 paired seeds" in ended.output
    assert summary["verdict"] in ended.output
    # The same words in every command.
    sentence = summary["difference"]["sentence"]
    assert sentence in summary["verdict"]
    compared = checkout.command(
        "harness.compare", "--study", "joint_search", "--against", "defaults"
    )
    assert sentence in " ".join(compared.output.split())
    assert summary["verdict"] in parent.data.tags["mlflow.note.content"]


def test_every_way_to_end_is_recorded_and_counts(checkout: Checkout) -> None:
    (checkout.root / "experiments" / "fragile.py").write_text(FRAGILE)
    (checkout.root / "studies" / "fragile_search.py").write_text(FRAGILE_SEARCH)
    broken = checkout.root / "experiments" / "broken"
    command = ("fragile_search", *ONE_WORKER, "--confirm-seeds", "1", "--sampler", "random")
    plan = run(checkout, *command, "--dry-run")
    assert re.search("search hidden_width +20 to 64; if wide is True\n", plan.output)
    broken.touch()
    stopped = run(checkout, *command)
    assert stopped.status == 1
    assert "the last 5 trials failed" in stopped.errors
    assert "ValueError: as it was told (fragile.py, line" in stopped.errors
    assert one_run(checkout, "fragile_search").data.tags["harness.outcome"] == "failed"
    assert len(counted(stored(checkout, "fragile_search"))) == 5
    broken.unlink()

    ended = run(checkout, *command, "--n-trials", "14")
    assert (ended.status, ended.errors) == (0, "")
    assert "an experiment that prints" not in ended.output
    outcomes = Counter(t.user_attrs["outcome"] for t in counted(stored(checkout, "fragile_search")))
    assert sum(outcomes.values()) == 14
    assert outcomes.keys() >= {"completed", "diverged", "failed"}
    check_both_stores_agree(checkout, "fragile_search")
    assert checkout.command("harness.report", "fragile_search", "--out", "r.html").status == 0
    page = (checkout.root / "r.html").read_text()
    assert page.count("20 to 64; if wide is True") == 2  # the searched values, the checklist
    assert "by the value of mode, wide, hidden_width (if wide is True), one panel" in page
    parent = one_run(checkout, "fragile_search")
    assert parent.data.tags["harness.outcome"] == "completed"
    for outcome, n in outcomes.items():
        assert parent.data.metrics[f"study/{outcome}"] == n
    assert "Best: trial" in ended.output
    assert "mode = fine" in ended.output
    reasons = {
        run.data.tags["harness.reason"]
        for run in of_kind(checkout, "trial", "fragile_search")
        if run.data.tags["harness.outcome"] == "diverged"
    }
    assert reasons == {"the loss is not finite"}


# Trials see no test examples


def idx(path: Path, items: bytes, *shape: int) -> None:
    magic = 2051 if len(shape) == 3 else 2049
    path.write_bytes(struct.pack(f">{1 + len(shape)}I", magic, *shape) + items)


def test_trials_do_without_the_test_images_and_the_confirmation_does_not(
    checkout: Checkout, tmp_path: Path
) -> None:
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 120), ("t10k", 30)):
        # What can be learned, in these few updates: each class lights its own rows.
        images = (255 * (pixel // 78 == i % 10) for i in range(n) for pixel in range(784))
        idx(raw / f"{part}-images-idx3-ubyte", bytes(images), n, 28, 28)
        idx(raw / f"{part}-labels-idx1-ubyte", bytes(i % 10 for i in range(n)), n)
    whole = {path: path.read_bytes() for path in raw.glob("t10k*")}
    for path in whole:
        path.write_bytes(b"damaged")
    command = (
        *("lr_search", "--num-epochs", "4", "--threads", "1", "--workers", "1", "--n-trials", "3"),
        *("--batch-size", "4", "--pruner", "none"),
        *("--confirm-seeds", "1", "--data-root", str(tmp_path / "data")),
    )
    ended = run(checkout, *command)
    assert ended.status == 1
    assert "A confirmation failed" in ended.errors
    assert "t10k-images-idx3-ubyte" in ended.errors
    trials = counted(stored(checkout, "lr_search"))
    assert [t.user_attrs["outcome"] for t in trials] == ["completed"] * 3
    assert one_run(checkout, "lr_search").data.tags["harness.outcome"] == "failed"

    for path, content in whole.items():
        path.write_bytes(content)
    mended = run(checkout, *command)
    assert mended.status == 0
    assert not ENDED.search(mended.output), "no trial is run again"
    assert "test accuracy" in mended.output
    assert one_run(checkout, "lr_search").data.tags["harness.outcome"] == "completed"


# Several processes


def test_two_launchers_share_one_study(checkout: Checkout) -> None:
    command = ("lr_search", *ONE_WORKER, "--n-trials", "9", "--confirm-seeds", "6")
    with running(checkout, *command) as first, running(checkout, *command) as second:
        outputs = [process.communicate(timeout=90)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    trials = counted(stored(checkout, "lr_search"))
    assert len(trials) == 9
    assert len({t.params["lr"] for t in trials}) == 9
    check_both_stores_agree(checkout, "lr_search")
    assert one_run(checkout, "lr_search").info.status == "FINISHED"
    confirmed = Counter(run.info.run_name for run in of_kind(checkout, "confirm", "lr_search"))
    assert set(confirmed.values()) == {1}
    assert len(confirmed) in (6, 12)  # with the defaults, unless they are the best
    for output in outputs:
        assert "lr_search: 9 of 9 trials finished" in output


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_on_a_terminal_a_table_shows_the_workers_though_two_of_three_die(
    checkout: Checkout,
) -> None:
    command = (
        *("lr_search", "--dataset", "digits", "--num-epochs", "20", "--threads", "1"),
        *("--workers", "3", "--n-trials", "7", "--confirm-seeds", "0", "--pruner", "none"),
    )
    ours, theirs = pty.openpty()
    with running(checkout, *command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen, kills = "", 0
        while select.select([ours], [], [], 60)[0]:
            try:
                screen += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            if kills < 2 and screen.count("died (killed by SIGKILL)") == kills and "/7]" in screen:
                os.kill(workers_of(checkout, process)[0], signal.SIGKILL)
                kills += 1
        assert process.wait(timeout=10) == 0, screen
    os.close(ours)
    for words in ("validation accuracy", "of 7 trials finished", "s left", "[7/7] trial"):
        assert words in screen
    assert screen.count("died (killed by SIGKILL); its training is queued again") == kills == 2
    assert len(counted(stored(checkout, "lr_search"))) == 7
    assert processes(checkout, "harness") == []
    check_both_stores_agree(checkout, "lr_search")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_workers_are_started_where_a_fork_would_lose_a_thread(checkout: Checkout) -> None:
    """They search as forked ones do, and end at once with a launcher that is refused."""
    thread = (
        "import threading\n\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    docstring, code = SMALL_SEARCH.split("\n\n", 1)
    for name, source in (
        ("forked_search", SMALL_SEARCH),
        ("started_search", f"{docstring}\n\n{thread}\n\n{code}"),
    ):
        (checkout.root / "studies" / f"{name}.py").write_text(source)
    words = ("--threads", "1", "--workers", "1", "--n-trials", "4", "--confirm-seeds", "1")
    with running(checkout, "forked_search", *words) as process:
        read_until(process, ENDED)
        assert len(workers_of(checkout, process)) == 1
        assert processes(checkout, "harness.workers.worker") == []
        process.communicate(timeout=120)
    with running(checkout, "started_search", *words) as process:
        read_until(process, ENDED)
        assert workers_of(checkout, process) == []
        assert len(processes(checkout, "harness.workers.worker")) == 1
        process.communicate(timeout=120)
    forked, started = (
        [(t.params, t.value) for t in counted(stored(checkout, name))]
        for name in ("forked_search", "started_search")
    )
    assert len(forked) == 4
    assert forked == started
    refused = run(checkout, "started_search", *words, "--sampler", "random")
    assert refused.status == 2, refused.errors
    assert processes(checkout, "harness") == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_an_interruption_while_the_workers_start_ends_them_all(checkout: Checkout) -> None:
    words = ("lr_search", *QUICK, "--confirm-seeds", "0", "--workers", "24", "--n-trials", "99")
    with running(checkout, *words) as process:
        wait_until(lambda: len(workers_of(checkout, process)) >= 3)
        process.terminate()
        assert process.wait(timeout=120) == 143
        assert processes(checkout, "harness") == []


def test_what_a_study_file_prints_is_printed_once(checkout: Checkout) -> None:
    """Also where it waits in a buffer while the workers are forked."""
    (checkout.root / "studies" / "small_search.py").write_text(SMALL_SEARCH + "\nprint('read')\n")
    words = ("small_search", "--workers", "3", "--n-trials", "3", "--confirm-seeds", "0")
    ended = checkout.command("harness.study", *words, changes={"PYTHONUNBUFFERED": ""})
    assert ended.status == 0, ended.errors
    assert ended.output.count("read") == 1


# Stopped in every way, and continued


def interrupt(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def terminate(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


def kill(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    process.kill()


def kill_worker(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    (worker,) = workers_of(checkout, process)
    os.kill(worker, signal.SIGKILL)


def kill_recorder(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    (recorder,) = processes(checkout, "harness.tracking.recorder_process")
    os.kill(recorder, signal.SIGKILL)


def kill_all(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    for pid in (process.pid, *processes(checkout, "harness")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


AGAIN = "Go on with the same command: python -m harness.study small_search"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_a_study_that_is_stopped_in_every_way_comes_to_the_same(checkout: Checkout) -> None:
    (checkout.root / "studies" / "small_search.py").write_text(SMALL_SEARCH)
    command = ("small_search", "--threads", "1", "--workers", "1", "--confirm-seeds", "1")
    reference = run(checkout, *command, "--study-name", "uninterrupted")
    assert reference.status == 0, reference.errors

    timed = run(checkout, *command, "--timeout", "0.01")
    assert timed.status == 0, timed.errors
    assert AGAIN in timed.output
    assert len(counted(stored(checkout, "small_search"))) == 1
    assert one_run(checkout, "small_search").data.tags["harness.outcome"] == "interrupted"

    for stop, status, words in (
        (interrupt, 130, AGAIN),
        (terminate, 143, AGAIN),
        (kill, -signal.SIGKILL, ""),
        (kill_recorder, 1, "recorder's process died"),
        (kill_all, -signal.SIGKILL, ""),
    ):
        before = len(counted(stored(checkout, "small_search")))
        with running(checkout, *command) as process:
            output = read_until(process, ENDED)
            assert f"[{before + 1}/14]" in output, "no trial that had finished is run again"
            time.sleep(0.05)
            stop(checkout, process)
            output += process.communicate(timeout=120)[0]
            assert process.returncode == status, output
            assert words in output
            assert "Traceback" not in output
            wait_until(lambda: not processes(checkout, "harness"))
        if stop not in (kill, kill_all):  # the next command requeues what a killed launcher left
            states = [trial.state for trial in stored(checkout, "small_search").get_trials()]
            assert TrialState.RUNNING not in states
        if stop not in (kill_all, kill_recorder):
            assert {run.info.status for run in checkout.runs()} <= {"FINISHED", "KILLED", "FAILED"}

    with running(checkout, *command) as process:
        output = read_until(process, ENDED)
        kill_worker(checkout, process)
        output += process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
    assert "worker 0 died (killed by SIGKILL); its training is queued again" in output
    for name in ("small_search", "uninterrupted"):
        check_both_stores_agree(checkout, name)
    results = [
        [(t.params, t.value, t.user_attrs["outcome"], t.last_step) for t in counted(study)]
        for study in (stored(checkout, "small_search"), stored(checkout, "uninterrupted"))
    ]
    assert results[0] == results[1]
    assert len(results[0]) == 14
    assert one_run(checkout, "small_search").info.status == "FINISHED"
    runs = of_kind(checkout, "confirm", "small_search")
    assert len({run.info.run_name for run in runs}) == len(runs)
    answers = [text[text.index("14 of 14 trials") :] for text in (output, reference.output)]
    assert answers[0].partition("\nrun ")[0] == answers[1].partition("\nrun ")[0]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_a_worker_ends_with_its_launcher_though_a_library_swallows_the_signal(
    checkout: Checkout,
) -> None:
    (checkout.root / "experiments" / "deaf.py").write_text(DEAF)
    (checkout.root / "studies" / "deaf_search.py").write_text(DEAF_SEARCH)
    with running(checkout, "deaf_search", "--threads", "1", "--workers", "1") as process:
        wait_until((checkout.root / "experiments" / "building").exists)
        process.kill()
        wait_until(lambda: not processes(checkout, "harness"))
    assert checkout.command("harness.sync").status == 0
    given_back, queued = stored(checkout, "deaf_search").trials
    assert given_back.user_attrs["outcome"] == "interrupted"
    assert queued.state == TrialState.WAITING


# What the answer says


def confirmed(**accuracies: list[float]) -> dict[str, Confirmation]:
    return {
        name: Confirmation(
            {}, {"test/accuracy": dict(enumerate(values))}, [], tuple(map(str, range(len(values))))
        )
        for name, values in accuracies.items()
    }


@pytest.fixture
def answer(tmp_path: Path) -> Callable[..., StudyAnswer]:
    """The result of a study of one trial, with these confirmations."""
    study = Study(
        experiment=Baseline(dataset="digits"),
        space={"lr": FloatDistribution(1e-3, 1, log=True), "hidden_width": IntDistribution(1, 256)},
    )
    url = storage_url(f"sqlite:///{tmp_path}/optuna.db")
    search = Search(study=study, study_name="some", url=url, n_trials=1)
    stored = open_study(search)
    trial = claim(search, stored)
    assert trial is not None
    tell(stored, trial, "completed", [0.5], {})

    def answered(**accuracies: list[float]) -> StudyAnswer:
        found = study_answer(search, stored, [], "cpu")
        assert found is not None
        again = confirmed(**accuracies)
        return StudyAnswer(search, stored, found.counts, found.chosen, again, "cpu")

    return answered


@pytest.mark.parametrize(
    ("best", "defaults", "words"),
    [
        ([0.95, 0.96, 0.95], [0.90, 0.92, 0.90], "beats the defaults by +4.67 points of test acc"),
        ([0.90, 0.92, 0.90], [0.95, 0.96, 0.95], "loses to the defaults by"),
        ([0.90, 0.92, 0.95], [0.91, 0.92, 0.93], "whether there is a difference cannot be told"),
        ([0.90, 0.90, 0.90], [0.90, 0.90, 0.90], "no verdict"),
        ([0.95], [0.90], "cannot be told from one seed"),
    ],
)
def test_the_verdict(
    answer: Callable[..., StudyAnswer], best: list[float], defaults: list[float], words: str
) -> None:
    answered = answer(best=best, defaults=defaults)
    assert words in answered.verdict
    assert f"n = {len(best)}" in answered.verdict
    difference = answered.difference
    assert difference is not None
    expected = [a - b for a, b in zip(best, defaults, strict=True)]
    assert difference.difference == pytest.approx(statistics.fmean(expected))
    if difference.interval:
        low, high = stats.t.interval(
            0.95, len(best) - 1, statistics.fmean(expected), stats.sem(expected)
        )
        assert difference.interval == pytest.approx((low, high))
        assert ("stands" in answered.verdict) == (low > 0 or high < 0)
    if len(best) == 1:
        assert "interval" not in answered.verdict
        assert "confirm/difference/low" not in answered.metrics()
    assert json.loads(answered.files()["study.json"])["verdict"] == answered.verdict


def test_where_the_defaults_are_the_best_there_is_nothing_to_compare(
    answer: Callable[..., StudyAnswer],
) -> None:
    answered = answer(best=[0.9, 0.91])
    assert answered.difference is None
    assert "nothing to compare" in "\n".join(answered.lines())


def test_a_diverged_confirmation_is_told(
    answer: Callable[..., StudyAnswer],
) -> None:
    answered = answer(best=[0.9, 0.0], defaults=[0.8, 0.8])
    answered.confirmed["best"].diverged.append(1)
    assert "best diverged with 1 of 2 seeds" in "\n".join(answered.warnings)
    lost = answer(best=[0.9, math.nan], defaults=[0.8, 0.8])
    assert "The best configuration finished with 1 of 2 seeds" in lost.verdict
    assert lost.difference
    assert lost.difference.interval is None
    assert json.loads(lost.files()["study.json"])["confirmed"]["best"]["values"] == {
        "test/accuracy": {"0": 0.9, "1": None}
    }


def test_few_trials_give_no_importances_and_it_is_said(
    answer: Callable[..., StudyAnswer],
) -> None:
    answered = answer()
    assert "fewer than 20 completed trials: no importances" in answered.description()
    assert "figures/importances.png" not in answered.files()
    assert {"figures/contour.png", "figures/slices.png"} <= answered.files().keys()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.95, "lies at the upper bound of its range (1)"),
        (1.0, "lies at the upper bound"),
        (0.0011, "lies at the lower bound of its range (0.001)"),
        (3.0, "lies beyond the upper bound of its range (1)"),
        (0.03, None),
    ],
)
def test_a_best_value_at_the_edge_of_its_range_is_told(value: float, words: str | None) -> None:
    trial = optuna.trial.create_trial(
        params={"lr": min(value, 1.0)},
        distributions={"lr": FloatDistribution(1e-3, 1.0, log=True)},
        value=0.5,
    )
    trial.params = {"lr": value}
    warnings = edge_warnings(trial)
    if words is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert words in warning
        assert f"the best lr ({value:g})" in warning


def test_the_lines_and_the_table_say_how_far_the_study_is() -> None:
    counts = Counts(completed=3, pruned=1, diverged=1, failed=0, running=1, waiting=0)
    goals = (Goal("validation/accuracy", "maximize"),)
    progress = StudyProgress(
        goals, 10, counts, 0.75, finished_before=1, started=time.monotonic() - 8
    )
    trial = TrainingEnded("trial 4 lr=0.1", "pruned", {"validation/accuracy": 0.5}, 2, "", 4)
    # Another command has ended a fifth one meanwhile.
    assert study_progress.trial_line(progress, trial) == (
        "[4/10] trial 4 lr=0.1: pruned, 0.5000 after 2 epochs; best 0.7500"
    )
    assert study_progress.how_far(progress) == (
        "5 of 10 trials finished (3 completed, 1 pruned, 1 diverged, 0 failed), "
        "best 0.7500, 10 s left"
    )
