"""The run command, as a process: what it prints, how it ends, what its death leaves behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import GIT, QUICK, SECRET_FILE, Checkout, Recorded
from scipy import stats

from harness.training import checkpoint

DIGITS = ("--dataset", "digits")
ENDLESS = (*DIGITS, "--num-epochs", "100000", "--threads", "1", "--no-figures")
LOSSES_AND_ACCURACIES = [
    f"{part}/{kind}" for part in ("train", "test") for kind in ("loss", "accuracy")
]


# ---- before anything is trained ----


@pytest.mark.parametrize(
    ("module", "words", "status", "expected"),
    [
        ("harness", [], 0, "softmax_regression   Softmax regression"),
        ("harness", ["--help"], 0, "python -m harness.COMMAND"),
        ("harness", ["rum"], 2, "Did you mean run?"),
        ("harness.run", [], 2, "usage: python -m harness.run NAME"),
        ("harness.run", ["--help"], 0, "baseline             A perceptron"),
        ("harness.run", ["basline", "--lr", "1"], 2, "Did you mean baseline?"),
        ("harness.run", ["zzz"], 2, "Known: baseline, cifar_convnet, "),
    ],
)
def test_lists_and_unknown_names_are_answered_without_the_libraries(
    checkout: Checkout, module: str, words: list[str], status: int, expected: str
) -> None:
    for library in ("torch", "mlflow", "optuna", "numpy", "rich", "tyro"):
        # The first to be found under that name: whoever imports it ends at once.
        (checkout.root / f"{library}.py").write_text("import os\nos._exit(99)\n")
    ended = checkout.command(module, *words)
    assert ended.status == status
    assert expected in ended.output + ended.errors
    assert not checkout.store.parent.exists()


def test_every_field_and_flag_is_in_the_help(checkout: Checkout) -> None:
    ended = checkout.run("baseline", "--help")
    assert ended.status == 0
    flags = ("--lr", "--hidden-width", "--validation-size", "--repeats", "--fallback", "--device")
    assert [flag for flag in flags if flag not in ended.output] == []
    assert "Units of the hidden layer. (default: 256)" in ended.output
    assert not checkout.store.parent.exists()


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_a_dry_run_tells_what_would_be_done_and_does_nothing(checkout: Checkout, flag: str) -> None:
    ended = checkout.run("baseline", flag, "--repeats", "2", "--tag", "colour=blue")
    assert ended.status == 0
    lines = {line.split()[0]: line for line in ended.output.splitlines()}
    assert "203,530 parameters" in lines["network"]
    assert "4,700 (2 x 10 epochs x 235 batches)" in lines["updates"]
    assert "to be downloaded" in lines["data"]
    assert str(checkout.store) in lines["recorded"]
    assert "0.1" in lines["lr"]
    assert not checkout.store.parent.exists()
    assert not (checkout.root / "data").exists()


def test_missing_data_is_explained_with_the_ways_out(checkout: Checkout) -> None:
    ended = checkout.run("baseline")
    assert ended.status == 1
    assert "fashion-mnist" in ended.errors
    for way in ("--data-root", "HARNESS_DATA_MIRROR", "--dataset digits", "--fallback digits"):
        assert way in ended.errors
    assert "Traceback" not in ended.errors
    assert len(ended.errors.splitlines()) <= 8
    assert not checkout.store.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_an_import_swallows_is_not_lost(
    checkout: Checkout, number: signal.Signals
) -> None:
    # As torch does when it imports NumPy: what is raised there is gone, and half a library remains.
    (checkout.root / "sitecustomize.py").write_text(
        f"""
import os, sys

class Swallowing:
    def find_spec(name, path=None, target=None):
        if name == "torch.nn":
            sys.meta_path.remove(Swallowing)
            try:
                os.kill(os.getpid(), {int(number)})
            except BaseException:
                pass

sys.meta_path.insert(0, Swallowing)
"""
    )
    ended = checkout.run("softmax_regression", *QUICK)
    assert ended.status == 128 + number
    assert (ended.output, ended.errors) == ("", "")
    assert not checkout.store.exists()


def test_an_interruption_that_an_experiment_swallows_ends_the_run_all_the_same(
    checkout: Checkout,
) -> None:
    (checkout.root / "experiments" / "deaf.py").write_text(DEAF)
    ended = checkout.run("deaf", "--dataset", "digits", "--num-epochs", "100000")
    assert ended.status == 130
    assert "Stopped after 0 epochs. Go on:" in ended.output
    (run,) = checkout.runs()
    assert run.data.tags["harness.outcome"] == "interrupted"


# ---- a run that ends by itself ----


def test_a_finished_run_prints_its_epochs_its_result_and_where_to_see_it(
    finished: Recorded,
) -> None:
    checkout, ended = finished
    assert (ended.status, ended.errors) == (0, "")
    first, second, *code, result, place, run, see = ended.output.splitlines()
    epoch = r"epoch {}/2  train loss \d\.\d{{4}} accuracy 0\.\d{{4}}  test loss .* examples/s .* s$"
    assert re.match(epoch.format(1), first)
    assert re.match(epoch.format(2), second)
    with checkout.opened() as client:
        metrics = client.get_run(ended.run_id).data.metrics
    accuracy, loss = metrics["test/accuracy"], metrics["test/loss"]
    assert "completed after 2 epochs" in result
    if GIT:
        assert re.fullmatch(r"code: [0-9a-f]{8}\+, with changes in 3 files", code[0])
        assert code[1:] == [
            f"  {SECRET_FILE} is not in the record: it looks as if it held a secret"
        ]
    assert f"test accuracy {accuracy:.4f}, loss {loss:.4f} (360 examples, n = 1 seed)" in result
    assert re.fullmatch(r"digits on cpu, \d+\.\d s", place)
    assert run == f"run {ended.run_id}"
    assert see == "see it with: python -m harness.ui"
    assert "\x1b" not in ended.output


def test_the_same_command_from_another_folder_gives_the_same_numbers_in_the_same_store(
    finished: Recorded, tmp_path: Path
) -> None:
    checkout, first = finished
    inside = checkout.root / "experiments" / "notes"
    inside.mkdir(exist_ok=True)
    second = checkout.run("baseline", *QUICK, "--quiet", "--no-figures", folder=inside)
    assert second.status == 0
    assert list(inside.iterdir()) == []
    with checkout.opened() as client:
        for name in LOSSES_AND_ACCURACIES:
            histories = [
                [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]
                for run_id in (first.run_id, second.run_id)
            ]
            assert histories[0] == histories[1]
            assert len(histories[0]) == 2
    # What --quiet leaves: the result, where it was computed, the run, how to see it.
    assert len(second.output.splitlines()) == 4
    assert "epoch 1/2" not in second.output


def test_a_new_file_in_the_folder_is_an_experiment(checkout: Checkout) -> None:
    (checkout.root / "experiments" / "tiny.py").write_text(
        '''"""A very small network."""

from typing import Annotated

from torch import nn

from harness.base.fields import Count
from harness import Experiment


class Tiny(Experiment):
    """Three layers of nearly nothing."""

    width: Annotated[int, Count] = 4
    """Units."""

    @property
    def edges(self) -> int:
        """Connections between the two layers."""
        return self.width * 10

    def network(self) -> nn.Module:
        first, second = nn.Linear(784, self.width), nn.Linear(self.width, 10)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
'''
    )
    assert re.search(r"tiny +A very small network", checkout.command("harness").output)
    ended = checkout.run("tiny", *QUICK, "--width", "6", "--no-figures")
    assert ended.status == 0
    with checkout.opened() as client:
        run = client.get_run(ended.run_id)
        assert client.get_experiment(run.info.experiment_id).name == "tiny"
    assert (run.data.params["width"], run.data.params["edges"]) == ("6", "60")


def test_the_fallback_is_announced_and_tagged(checkout: Checkout) -> None:
    ended = checkout.run(
        *("baseline", "--fallback", "digits", "--num-epochs", "1", "--threads", "1", "--no-figures")
    )
    assert ended.status == 0
    assert ended.output.startswith("fashion-mnist is unavailable: training on digits instead")
    (run,) = checkout.runs()
    assert run.data.params["dataset"] == "digits"
    assert run.data.tags["harness.fallback_from"] == "fashion-mnist"


def test_a_group_summarizes_its_seeds(group: Recorded) -> None:
    checkout, ended = group
    assert ended.status == 0
    runs = {run.info.run_id: run for run in checkout.runs()}
    whole = runs.pop(ended.run_id)
    assert sorted(run.data.params["seed"] for run in runs.values()) == ["4", "5", "6"]
    for name in LOSSES_AND_ACCURACIES:
        values = [run.data.metrics[name] for run in runs.values()]
        mean, error = np.mean(values), stats.sem(values)
        low, high = stats.t.interval(0.95, df=2, loc=mean, scale=error)
        expected = {"n": 3, "mean": mean, "std": np.std(values, ddof=1), "low": low, "high": high}
        found = {kind: whole.data.metrics[f"{name}/{kind}"] for kind in expected}
        assert found == pytest.approx(expected, rel=1e-12)
        line = f"{mean:.4f} ± {expected['std']:.4f} (n = 3, 95% interval {low:.4f} to {high:.4f})"
        assert line in ended.output
    assert len(set(whole.data.metrics[f"{name}/std"] for name in LOSSES_AND_ACCURACIES)) > 1


def test_a_diverged_run_stops_at_once_and_says_what_may_help(checkout: Checkout) -> None:
    ended = checkout.run("baseline", *DIGITS, "--threads", "1", "--lr", "1e30")
    assert ended.status == 1
    assert "diverged after 1 epoch" in ended.output
    assert "a smaller --lr may help" in ended.output
    assert "Traceback" not in ended.errors
    (run,) = checkout.runs()
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FAILED", "diverged")
    with checkout.opened() as client:
        losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1]
    assert not np.isfinite(losses[0].value)


def test_a_collapsed_run_ends_as_a_diverged_one_does(checkout: Checkout) -> None:
    words = ("--lr", "80", "--init-std", "0.3", "--batch-size", "64")
    ended = checkout.run("baseline", "--dataset", "digits", "--threads", "1", *words)
    assert ended.status == 1, ended.errors
    assert "collapsed after 10 epochs" in ended.output
    assert "Nothing was learned: another --lr may help" in ended.output
    (run,) = checkout.runs()
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FAILED", "collapsed")
    assert run.data.tags["harness.reason"].startswith("nothing was learned")
    with checkout.opened() as client:
        kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"weights.pt", "figures"} <= kept, "it may be looked at"
    refused = checkout.run("--resume", ended.run_id)
    assert refused.status == 2
    assert "has collapsed after 10 epochs; nothing is left to train. To train it further:" in (
        refused.errors
    )
    longer = checkout.run("--continue", ended.run_id, "--num-epochs", "11")
    assert longer.status == 1, longer.errors
    assert "collapsed after 11 epochs" in longer.output
    compared = checkout.command("harness.compare", "--experiment", "baseline")
    assert "collapsed" in compared.output


DEAF = '''"""Swallows an interruption while its network is built."""

import os
import signal

from experiments.baseline import Baseline


class Deaf(Baseline):
    def network(self):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
        return super().network()
'''

FAILING = (
    '"""Fails in its third epoch."""\n'
    + """
from torch import nn

from harness import Experiment


class Failing(Experiment):
    def network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def scheduler(self, optimizer, num_updates):
        return Schedule()


class Schedule:
    steps = 0

    def step(self):
        self.steps += 1
        if self.steps == 3 * 6:
            raise ValueError("as it was told")

    def state_dict(self):
        return {}
"""
)


def test_an_error_ends_a_run_as_failed_and_is_kept_with_it(checkout: Checkout) -> None:
    (checkout.root / "experiments" / "failing.py").write_text(FAILING)
    failed = checkout.run("failing", "--dataset", "digits", "--threads", "1", "--num-epochs", "5")
    assert failed.status == 1
    message = "failing failed: ValueError: as it was told (failing.py, line 22)"
    first, hint = failed.errors.splitlines()
    assert first == f"error: {message}"
    (run,) = checkout.runs()
    assert hint.endswith(f"python -m harness.run --resume {run.info.run_id}")
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FAILED", "failed")
    assert run.data.tags["harness.reason"] == message
    with checkout.opened() as client:
        text = Path(client.download_artifacts(run.info.run_id, "error.txt")).read_text()
    assert "experiments/failing.py, line 22, in step" in text
    assert str(checkout.root) not in text
    assert text.endswith("ValueError: as it was told\n")


def test_eight_runs_at_once_share_a_new_store(checkout: Checkout) -> None:
    with contextlib.ExitStack() as stack:
        words = ("softmax_regression", *QUICK, "--no-figures")
        processes = [stack.enter_context(checkout.running(*words)) for _ in range(8)]
        ended = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [status for _, status in ended] == [0] * 8, ended
    runs = checkout.runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert len({run.info.experiment_id for run in runs}) == 1
    assert len({run.data.metrics["test/loss"] for run in runs}) == 1


def shown_on_a_terminal(checkout: Checkout, *words: str) -> tuple[int, str]:
    """What a person sees of a run, escape sequences and all."""
    ours, theirs = pty.openpty()
    process = checkout.start(
        "harness.run",
        *words,
        changes={"TERM": "xterm-256color", "COLUMNS": "150"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # which is how a terminal says that nobody writes to it
            while piece := os.read(ours, 65536):
                shown.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        status = process.wait(timeout=120)
    finally:
        process.kill()
        reader.join(timeout=10)
        os.close(ours)
    return status, shown.decode()


def test_a_terminal_shows_a_bar_that_goes_away(checkout: Checkout) -> None:
    words = ("baseline", *DIGITS, "--num-epochs", "30", "--threads", "1", "--no-figures")
    status, shown = shown_on_a_terminal(checkout, *words)
    assert status == 0
    assert "━" in shown
    assert re.search(r"epoch \d+/30 loss \d\.\d{4}", shown)
    # The cursor is there again, the bar is not, and the lines stand as they do in a file.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    last = shown[shown.rindex("━") :]
    assert "\x1b[2K" in last
    assert [line for line in last.splitlines() if line.startswith("run ")]
    lines = [line for line in shown.splitlines() if re.search(r"epoch +\d+/30  train loss", line)]
    assert len(lines) == 30


# ---- a run that is ended ----


def wait_for_epochs(process: subprocess.Popen[str], n: int) -> None:
    assert process.stdout
    for _ in range(n):
        line = process.stdout.readline()
        assert line.startswith("epoch"), process.communicate(timeout=120)


def recorder_of(process: subprocess.Popen[str]) -> psutil.Process:
    (recorder,) = (
        child
        for child in psutil.Process(process.pid).children()
        if "harness.tracking.recorder_process" in child.cmdline()
    )
    return recorder


def test_ctrl_c_ends_a_run_in_order(checkout: Checkout) -> None:
    with checkout.running("baseline", *ENDLESS) as process:
        wait_for_epochs(process, 2)
        recorder = recorder_of(process)
        # As a terminal does it, to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == ""
    assert "Go on: " in output
    assert not recorder.is_running()
    (run,) = checkout.runs()
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("KILLED", "interrupted")
    with checkout.opened() as client:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "test/loss")]
    assert steps == list(range(1, len(steps) + 1))
    folder = checkout.store.parent / "checkpoints" / run.info.run_id
    path = checkpoint.path_of(folder, steps[-1])
    assert [epoch for epoch, _ in checkpoint.history(path, checkpoint.load(path))] == steps


def test_sigterm_ends_a_group_and_its_run_in_order(checkout: Checkout) -> None:
    with checkout.running("softmax_regression", *ENDLESS, "--repeats", "2") as process:
        wait_for_epochs(process, 1)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors == ""
    runs = checkout.runs()
    assert {run.data.tags["harness.kind"] for run in runs} == {"run", "group"}
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert [run.data.tags["harness.outcome"] for run in runs] == ["interrupted", "interrupted"]


def test_the_recorder_ends_the_run_of_a_process_that_was_killed(checkout: Checkout) -> None:
    with checkout.running("softmax_regression", *ENDLESS) as process:
        wait_for_epochs(process, 1)
        recorder = recorder_of(process)
        process.kill()
        killed = time.monotonic()
        process.wait()
        assert psutil.wait_procs([recorder], timeout=10)[1] == []
        assert time.monotonic() - killed < 10
    (run,) = checkout.runs()
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("KILLED", "interrupted")
    assert run.data.tags["harness.reason"] == "its process died"
    folder = checkout.store.parent / "checkpoints" / run.info.run_id
    assert checkpoint.load(checkpoint.latest_first(folder)[0]).epoch


def test_a_run_without_its_recorder_fails_and_says_so(checkout: Checkout) -> None:
    with checkout.running("softmax_regression", *ENDLESS) as process:
        wait_for_epochs(process, 1)
        recorder_of(process).kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (run,) = checkout.runs()
    assert errors == (
        "error: The recorder's process died: nothing more can be recorded.\n"
        f"Once that is fixed, go on: python -m harness.run --resume {run.info.run_id}\n"
    )


BRANCHING = '''"""A network whose course depends on the data: torch cannot export it."""

from torch import nn

from harness import Experiment


class Halves(nn.Module):
    """One of two layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(784, 10), nn.Linear(784, 10)])

    def forward(self, images):
        inputs = images.flatten(1)
        return self.layers[0](inputs) if inputs.sum() > 0 else self.layers[1](inputs)


class Branching(Experiment):
    """Two layers, of which one is used."""

    def network(self):
        return Halves()
'''


def test_a_network_that_cannot_be_exported_keeps_its_figures_and_weights(
    checkout: Checkout,
) -> None:
    (checkout.root / "experiments" / "branching.py").write_text(BRANCHING)
    ended = checkout.run("branching", *QUICK)
    assert ended.status == 0, ended.errors
    (warning,) = ended.errors.splitlines()
    assert warning.startswith("warning: no model: ")
    assert "branching.py, line 17" in warning
    assert "def forward" not in ended.output
    with checkout.opened() as client:
        kept = {file.path for file in client.list_artifacts(ended.run_id, "figures")}
        assert "figures/confusion_matrix.png" in kept
        assert "weights.pt" in {file.path for file in client.list_artifacts(ended.run_id)}
    (run,) = checkout.runs()
    assert run.data.tags["harness.incomplete"].startswith("no model: ")
