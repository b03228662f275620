"""Reports hold what was recorded, all of it and nothing else, in one file that needs no network."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GIT, HOSTILE, Checkout, Recorded
from mlflow.entities import Run
from optuna.trial import FrozenTrial
from report_page import Parsed, check_needs_nothing_else

from harness.base.statistics import summarize
from harness.search.storage import load_stored


@pytest.fixture(scope="module")
def written(reports: dict[str, Path]) -> tuple[str, str]:
    """The pages of a study and of an experiment."""
    study, experiment = (path.read_text(encoding="utf-8") for path in reports.values())
    return study, experiment


def runs_of(checkout: Checkout, kind: str, name: str) -> list[Run]:
    """The runs of a kind in one of MLflow's experiments, the latest first."""
    with checkout.opened() as client:
        experiment = client.get_experiment_by_name(name)
        assert experiment
        condition = f"tags.harness.kind = '{kind}'"
        return list(client.search_runs([experiment.experiment_id], condition))


def trials_of(checkout: Checkout) -> list[FrozenTrial]:
    url = f"sqlite:///{checkout.root}/mlruns/optuna.db"
    return list(load_stored(url, "joint_search").get_trials())


# Of a study


def test_both_reports_need_nothing_else(written: tuple[str, str]) -> None:
    for page in written:
        check_needs_nothing_else(page)
        assert page.startswith("<!doctype html>")
        assert '<html lang="en">' in page
        assert len(page) < 3_000_000


def test_the_report_of_a_study_answers_the_question(
    written: tuple[str, str], worked: Recorded
) -> None:
    checkout, _ = worked
    page = Parsed(written[0])
    assert "What can the baseline reach with learning rate, batch size" in page.text
    (parent,) = runs_of(checkout, "study", "joint_search")
    (folder,) = (checkout.root / "mlruns" / "artifacts").glob(f"*/{parent.info.run_id}/artifacts")
    answer = json.loads((folder / "study.json").read_text())
    assert answer["verdict"] in page.text
    for warning in answer["warnings"]:
        assert warning in page.text
    accuracies: dict[str, list[float]] = {}
    for run in runs_of(checkout, "confirm", "joint_search"):
        config = run.data.tags["harness.config"]
        accuracies.setdefault(config, []).append(run.data.metrics["test/accuracy"])
    head, rows = page.table("configuration")
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert accuracies.keys() <= found.keys()
    for config, values in accuracies.items():
        expected = summarize(values)
        for name, number in (
            ("mean", statistics.fmean(values)),
            ("std", statistics.stdev(values)),
            ("95% low", expected.low),
            ("95% high", expected.high),
        ):
            assert found[config][name] == f"{number:.4f}"
        assert found[config]["n seeds"] == "2"


def test_all_trials_are_in_the_table_with_their_values(
    written: tuple[str, str], worked: Recorded
) -> None:
    page, trials = Parsed(written[0]), trials_of(worked[0])
    head, rows = page.table("trial")
    assert len(rows) == len(trials) == 6
    for row, trial in zip(rows, trials, strict=True):
        cells = dict(zip(head, row, strict=True))
        assert cells["trial"] == str(trial.number)
        assert cells["outcome"] == trial.user_attrs["outcome"]
        assert cells["validation accuracy"] == f"{trial.value:.4f}"
        assert cells["lr"] == f"{trial.params['lr']:.6g}"
        assert cells["batch_size"] == str(trial.params["batch_size"])
    # What a click sorts by is the whole number, not its rounded words.
    (values,) = (v for v, t in zip(page.values, page.tables, strict=True) if t[0][0] == "trial")
    assert [row[2] for row in values[1:]] == [str(trial.value) for trial in trials]


def test_the_checklist_is_filled_in_from_the_record(
    written: tuple[str, str], worked: Recorded
) -> None:
    checkout, _ = worked
    page = Parsed(written[0])
    (checklist,) = (t for t in page.tables if t[0][0].endswith(("yes", "open")))
    items = {name: record for _, name, record in checklist}
    (parent,) = runs_of(checkout, "study", "joint_search")
    tags = parent.data.tags
    confirmation = runs_of(checkout, "confirm", "joint_search")[0].data.tags
    for digest in (
        tags["harness.data.training_sha256"],
        tags["harness.data.validation_sha256"],
        confirmation["harness.data.training_sha256"],
        confirmation["harness.data.test_sha256"],
    ):
        assert digest in items["Data"]
    assert "239 training examples set aside" in items["Split"]
    assert "0.01 to 1.0, logarithmic" in items["Search space"]
    assert items["Number of runs"].startswith("6 trials (")
    assert items["Number of runs"].endswith("(2 configurations, 2 seeds each)")
    assert tags["harness.processor"] in items["Hardware"]
    for package in ("torch", "mlflow", "optuna", "python"):
        assert f"{package} {tags[f'harness.{package}']}" in items["Versions"]
    assert re.match(r"[\d.]+ s: trials [\d.]+ s, of which training", items["Compute time"])
    (commands,) = page.commands
    assert tags["harness.command"] in commands
    assert "python -m harness.run baseline --dataset digits --seed 1 --lr" in commands


def test_the_commands_of_a_report_give_its_numbers(
    written: tuple[str, str], worked: Recorded, tmp_path: Path
) -> None:
    checkout, _ = worked
    (command,) = re.findall(
        r"# defaults.*\npython -m harness.run (.*)", Parsed(written[0]).commands[0]
    )
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    ended = checkout.run(*command.split(), "--no-figures", "--quiet", changes=elsewhere)
    head, rows = Parsed(written[0]).table("configuration")
    (mean,) = (row[head.index("mean")] for row in rows if row[0] == "defaults")
    assert re.search(rf"test/accuracy +{mean} ", ended.output)


def test_the_report_is_kept_with_its_study(written: tuple[str, str], worked: Recorded) -> None:
    checkout, _ = worked
    (parent,) = runs_of(checkout, "study", "joint_search")
    (folder,) = (checkout.root / "mlruns" / "artifacts").glob(f"*/{parent.info.run_id}/artifacts")
    assert (folder / "report.html").read_text(encoding="utf-8") == written[0]


# Of an experiment


def test_the_report_of_an_experiment_compares_its_configurations(
    written: tuple[str, str], worked: Recorded
) -> None:
    checkout, _ = worked
    page = Parsed(written[1])
    assert "784-256-10" in page.text
    runs = runs_of(checkout, "run", "baseline")
    head, rows = page.table("accuracy")
    found = {row[head.index("lr")]: row for row in rows}
    assert len(rows) == len(runs) == 3
    for run in runs:
        row = dict(zip(head, found[f"{float(run.data.params['lr']):.6g}"], strict=True))
        assert row["accuracy"] == f"{run.data.metrics['test/accuracy']:.4f}"
        assert row["hidden_width"] == run.data.params["hidden_width"]
        assert (row["n seeds"], row["std"]) == ("1", "—")
    assert [row[head.index("accuracy")] for row in rows] == sorted(
        (row[head.index("accuracy")] for row in rows), reverse=True
    )
    head, rows = page.table("name")
    assert [row[0] for row in rows] == [run.info.run_name for run in runs]
    for run in runs:
        assert run.data.tags["harness.command"] in page.commands[0]


def test_seeds_are_summarized_and_a_hostile_name_is_only_shown(
    worked: Recorded, tmp_path: Path
) -> None:
    checkout, _ = worked
    path = tmp_path / "report.html"
    path.write_text("an older one")
    ended = checkout.command("harness.report", "softmax_regression", "--out", str(path))
    assert (ended.status, ended.errors) == (0, "")
    text = path.read_text(encoding="utf-8")
    check_needs_nothing_else(text)
    assert HOSTILE not in text
    page = Parsed(text)
    assert [name for name, _ in page.tags].count("script") == 1
    _, rows = page.table("name")
    assert [row[0] for row in rows] == [f"{HOSTILE} seed={seed}" for seed in (2, 1, 0)]
    accuracies = [
        run.data.metrics["test/accuracy"] for run in runs_of(checkout, "run", "softmax_regression")
    ]
    head, (row,) = page.table("configuration")
    assert row[0] == HOSTILE
    cells = dict(zip(head, row, strict=True))
    assert cells["accuracy"] == f"{statistics.fmean(accuracies):.4f}"
    assert cells["std"] == f"{statistics.stdev(accuracies):.4f}"
    assert cells["n seeds"] == "3"


@pytest.mark.skipif(not GIT, reason="git is not installed")
def test_the_commands_of_a_report_repeat_the_run(finished: Recorded, tmp_path: Path) -> None:
    checkout, first = finished
    page = tmp_path / "page.html"
    assert checkout.command("harness.report", "baseline", "--out", str(page)).status == 0
    (script,) = Parsed(page.read_text(encoding="utf-8")).commands
    # A clone of this copy, elsewhere; what would be installed is installed already.
    script = script.replace("REPOSITORY", str(checkout.root)).replace("../", f"{tmp_path}/")
    script = re.sub(r"^(python -m venv|pip install) .*$", ":", script, flags=re.MULTILINE)
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=checkout.root,
        env=checkout.environment(PATH=search, PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (repeated,) = Checkout(tmp_path / "repeated").runs()
    # Others use this copy at the same time.
    (original,) = (run for run in checkout.runs() if run.info.run_id == first.run_id)
    for tag in ("harness.experiment_sha256", "harness.weights_sha256", "harness.git_commit"):
        assert repeated.data.tags[tag] == original.data.tags[tag]


# What is refused


def test_what_cannot_be_reported_is_explained(worked: Recorded, tmp_path: Path) -> None:
    checkout, _ = worked
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    for words, message in (
        (("joint_serch",), "Did you mean joint_search?"),
        (("lenet",), "lenet has no runs yet. Make some: python -m harness.run lenet"),
        (("lr_search",), "lr_search has no runs yet. Make some: python -m harness.study lr_search"),
        (("baseline", "--out", str(tmp_path)), "is a folder"),
        (("baseline", "--out", str(tmp_path / "none" / "x.html")), "there is no folder"),
        (("joint_search", "--storage", elsewhere), "give the --storage"),
        (("joint_search", "--storage", "nonsense"), "expected a database URL"),
    ):
        ended = checkout.command("harness.report", *words)
        assert ended.status == 2, words
        assert message in ended.errors
        assert "Traceback" not in ended.errors
    assert list(tmp_path.iterdir()) == []
    assert not (checkout.root / "report.html").exists()


def test_where_nothing_was_run_yet_nothing_is_made(checkout: Checkout) -> None:
    ended = checkout.command("harness.report", "baseline")
    assert ended.status == 2
    assert "baseline has no runs yet" in ended.errors
    assert not (checkout.root / "mlruns").exists()
