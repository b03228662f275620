"""Recorded runs as frames: what MLflow's own client says, with few questions, in known columns."""

from __future__ import annotations

import math
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from conftest import Checkout, Recorded
from mlflow import MlflowClient
from mlflow.entities import Metric

import harness
from harness.base.errors import BadRequest, RunFailed
from harness.tracking import pages, reader
from harness.tracking.frames import DTYPES


@pytest.fixture(scope="module")
def database(group: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of real runs, and of all that is unusual: no number, deleted, not ours."""
    checkout, _ = group
    path = tmp_path_factory.mktemp("reading") / "a store #1" / "mlflow.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(checkout.store)) as real, closing(sqlite3.connect(path)) as copy:
        real.backup(copy)
    client = MlflowClient(f"sqlite:///{path}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "softmax_regression")
    for values in ([2.0, math.nan, math.inf], [-math.inf, 0.5], [math.nan]):
        run = client.create_run(
            experiment.experiment_id,
            tags={"harness.kind": "run", "harness.outcome": "diverged", "colour": "blue"},
        )
        metrics = [
            Metric(name, value, 1000 + step, step)
            for name in ("train/loss", "test/accuracy", "x")
            for step, value in enumerate(values, 1)
        ]
        client.log_batch(run.info.run_id, metrics=metrics)
        # A second time, as a run that was resumed after a loss of power may do it.
        client.log_batch(run.info.run_id, metrics=[Metric("x", 7.0, 2000, 1)])
        client.log_batch(run.info.run_id, metrics=[Metric("x", 8.0, 3000, 1)])
    deleted = client.create_run(experiment.experiment_id)
    client.delete_run(deleted.info.run_id)
    elsewhere = client.create_experiment("deleted")
    client.create_run(elsewhere)
    client.delete_experiment(elsewhere)
    client.create_run("0", run_name="somebody else's")
    return path


@pytest.fixture(autouse=True)
def used(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")


@pytest.fixture(scope="module")
def served(database: Path) -> Iterator[str]:
    """The same store behind MLflow's own server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        with pages.serving(pages.LOOPBACK, port) as address:
            yield address


# ---- the private route ----


def everything(reader: reader.Reader) -> dict[str, Any]:
    """All that a reader tells, with NaN as a word, which is equal to itself."""
    listed = reader.listing(None)
    ids = [run.run_id for run in listed]
    told: dict[str, Any] = eval(
        repr(
            {
                "experiments": sorted(reader.experiments()),
                "listed": [vars(run) for run in listed],
                "runs": [vars(run) for run in reader.runs(ids)],
                "history": reader.history(ids),
            }
        ),
        {"nan": "nan", "inf": math.inf},
    )
    return told


def test_the_database_holds_what_mlflow_tells_of_it(database: Path) -> None:
    by_database = everything(reader.DatabaseReader(database))
    by_client = everything(reader.ClientReader())
    assert by_database == by_client
    # And there was something to tell.
    assert len(by_database["runs"]) == 8
    assert len(by_database["history"]) > 100


def test_a_server_tells_the_same_in_a_few_answers(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = everything(reader.DatabaseReader(database))
    asked = []
    send = requests.Session.send

    def counted(session: Any, request: Any, **options: Any) -> Any:
        asked.append(request.path_url.partition("?")[0].rpartition("/")[2])
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", counted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    assert everything(reader.ClientReader()) == by_database
    metrics = {name for _, _, name, _ in by_database["history"]}
    judged = {name for name in metrics if reader.best_of(name)}
    # What a single run alone has is not worth another kind of question.
    assert asked.count("get-history-bulk") <= len(metrics) + len(judged)
    assert asked.count("search") == 2
    assert len(asked) <= 2 + len(metrics) + len(judged)


def test_answers_that_are_too_long_are_asked_for_in_parts(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = everything(reader.DatabaseReader(database))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setattr(reader, "LONGEST_HISTORY", 5)
    monkeypatch.setattr(reader, "MOST_RUNS", 3)
    monkeypatch.setattr(reader, "PAGE", 2)
    assert everything(reader.ClientReader()) == by_database


def test_a_server_without_that_address_is_asked_run_by_run(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = everything(reader.DatabaseReader(database))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setattr(reader, "HISTORIES", "/ajax-api/2.0/mlflow/metrics/not-there")
    assert everything(reader.ClientReader()) == by_database


def test_reading_writes_nothing(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout.store}")
    assert harness.runs().empty
    assert harness.runs(filter="params.lr = '0.1'").empty
    assert harness.epochs().empty
    assert not checkout.store.exists()


def test_a_damaged_store_is_a_failure_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all, but long enough to look like one" * 9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RunFailed, match=r"mlflow\.db cannot be read: file is not a database"):
        harness.runs()


def test_a_server_that_is_away_is_a_failure_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RunFailed, match=r"http://\*\*\*@127\.0\.0\.1:1 cannot be read") as raised:
        harness.runs()
    assert "secret" not in str(raised.value)


# ---- frames ----


def test_a_frame_of_runs_has_the_documented_columns(group: Recorded) -> None:
    _, ended = group
    frame = harness.runs()
    assert list(frame)[: len(DTYPES)] == list(DTYPES)
    assert {name: str(frame[name].dtype) for name in DTYPES} == DTYPES
    assert list(harness.runs(filter="metrics.y > 100")) == list(DTYPES)
    assert list(frame["run_id"]) == [run.run_id for run in reader.reader().listing(None)]
    children = frame[frame["parent"] == ended.run_id]
    assert list(children["seed"]) == [6, 5, 4]
    assert set(children["kind"]) == {"run"}
    assert set(children["dataset"]) == {"digits"}
    assert list(children["epochs"]) == [2, 2, 2]
    assert (children["seconds"] > 0).all()
    (parent,) = frame[frame["run_id"] == ended.run_id].to_dict("records")
    assert parent["kind"] == "group"
    assert pd.isna(parent["seed"])
    (foreign,) = frame[frame["name"] == "somebody else's"].to_dict("records")
    assert pd.isna(foreign["kind"])
    assert pd.isna(foreign["epochs"])
    assert list(frame["tags.colour"].dropna()) == ["blue"] * 3
    assert children["data.training"].str.len().eq(64).all()


def test_parameters_are_what_their_text_says(group: Recorded) -> None:
    _, ended = group
    frame = harness.runs(run_ids=harness.runs()["run_id"][lambda ids: ids != ended.run_id])
    kinds = {name: str(frame[f"params.{name}"].dtype) for name in ("seed", "batch_size", "lr")}
    assert kinds == {"seed": "Int64", "batch_size": "Int64", "lr": "float64"}
    assert str(frame["params.capture_graph"].dtype) == "boolean"
    assert str(frame["params.dataset"].dtype) == "str"
    assert set(frame["params.lr"].dropna()) == {0.1}
    # The group's seed is a range: words.
    assert str(harness.runs()["params.seed"].dtype) == "str"


def test_metrics_are_the_last_ones_and_the_best_ones() -> None:
    frame = harness.runs(filter="tags.colour = 'blue'")
    last, best = list(frame["metrics.train/loss"]), list(frame["best.train/loss"])
    by_last = dict(zip(map(str, last), best, strict=True))
    assert by_last["inf"] == 2.0
    assert by_last["0.5"] == -math.inf
    assert math.isnan(by_last["nan"])
    assert "best.x" not in frame
    history = harness.epochs("softmax_regression")
    real = harness.runs("softmax_regression", filter="tags.harness.outcome = 'completed'")
    for run in real[real["kind"] == "run"].to_dict("records"):
        values = history[(history["run_id"] == run["run_id"])]
        accuracy = values[values["metric"] == "test/accuracy"]["value"]
        assert len(accuracy) == 2
        assert run["metrics.test/accuracy"] == accuracy.iloc[-1]
        assert run["best.test/accuracy"] == accuracy.max()


def test_a_frame_of_epochs_has_a_row_a_run_and_epoch_and_metric() -> None:
    frame = harness.epochs("softmax_regression")
    kinds = {"run_id": "str", "epoch": "int64", "metric": "category", "value": "float64"}
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == kinds
    assert not frame.duplicated(["run_id", "epoch", "metric"]).any()
    runs = harness.runs("softmax_regression")
    assert list(frame["run_id"].unique()) == list(runs[runs["kind"] != "group"]["run_id"])
    # What was recorded last counts.
    twice = frame[(frame["metric"] == "x") & (frame["epoch"] == 1)]
    assert list(twice["value"]) == [8.0] * 3
    some = runs[runs["seed"] == 5]
    pd.testing.assert_frame_equal(
        harness.epochs(some), harness.epochs(run_ids=list(some["run_id"]))
    )
    assert set(harness.epochs(some)["epoch"]) == {1, 2}
    assert dict(harness.epochs(some[:0]).dtypes.astype(str)) == kinds


# ---- selections ----


def test_the_first_letters_of_an_id_are_enough(group: Recorded) -> None:
    _, ended = group
    frame = harness.runs(run_ids=[ended.run_id[:12]])
    assert list(frame["run_id"]) == [ended.run_id]
    assert list(harness.runs(run_ids=ended.run_id)["run_id"]) == [ended.run_id]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"experiment": "softmax_regresion"}, "Did you mean softmax_regression"),
        ({"experiment": "lenet"}, r"lenet has no runs yet.*python -m harness\.run lenet"),
        ({"experiment": "deleted"}, "no runs of 'deleted'"),
        ({"study": "lr_search"}, r"lr_search has no runs yet.*harness\.study lr_search"),
        ({"study": "softmax_regression"}, "softmax_regression is an experiment"),
        ({"experiment": "a", "study": "b"}, "not both"),
        ({"run_ids": ["nonsense"]}, r"no run 'nonsense' here. The latest: \w{8} \("),
        ({"run_ids": [""]}, "no run ''"),
        ({"filter": "params.lr ~ 3"}, "filter: "),
    ],
)
def test_what_is_not_there_is_a_bad_request(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        harness.runs(**choice)


def test_letters_that_several_ids_start_with_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [reader.Listed(f"{start}{'0' * 28}", "x", "run") for start in ("abcd", "abce", "f00d")]
    monkeypatch.setattr(reader.DatabaseReader, "listing", lambda self, experiment, query: listed)
    with pytest.raises(BadRequest, match=r"2 runs start with 'abc': abcd000 \(x\), abce000"):
        harness.runs(run_ids=["abc"])
    with pytest.raises(BadRequest, match="Did you mean abcd0000"):
        harness.runs(run_ids=["abcd0001"])


def test_a_filter_narrows_an_experiment_down(group: Recorded) -> None:
    chosen = harness.runs("softmax_regression", filter="params.seed = '5'")
    assert list(chosen["seed"]) == [5]
    assert harness.runs("Default", filter="params.seed = '5'").empty


# ---- in Python ----


def python(checkout: Checkout, program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_reading_an_embedded_store_imports_no_mlflow(group: Recorded) -> None:
    checkout, _ = group
    program = (
        "import sys, harness; heavy = {'torch', 'mlflow', 'pandas', 'numpy', 'sqlalchemy'};"
        "print(sorted(heavy & set(sys.modules)));"
        "print(len(harness.epochs(harness.runs('softmax_regression'))) > 0);"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(checkout, program).split("\n")[:3] == ["[]", "True", "['numpy', 'pandas']"]


def test_the_package_offers_its_functions_and_no_others() -> None:
    assert {"runs", "epochs", "run_experiment"} <= set(dir(harness))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = harness.nonsense


def test_an_experiment_runs_from_python_with_the_whole_record(checkout: Checkout) -> None:
    options = "data_root='somewhere', threads=1, figures=False, tags={'colour': 'red'}"
    printed = python(
        checkout,
        "import harness; from experiments.baseline import Baseline;"
        "experiment = Baseline(lr=0.05, dataset='digits', num_epochs=2);"
        f"result = harness.run_experiment(experiment, {options});"
        "print(result.run_id, result.outcome, len(result.epochs),"
        " result.metrics['test/accuracy'])",
    )
    run_id, outcome, epochs, accuracy = printed.split()
    assert (outcome, epochs) == ("completed", "2")
    with checkout.opened() as client:
        run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == float(accuracy)
    assert run.data.params["lr"] == "0.05"
    assert run.data.tags["colour"] == "red"
    # Told as the command line that does the same.
    assert run.data.tags["harness.command"] == (
        "python -m harness.run baseline --dataset digits --lr 0.05 --num-epochs 2 "
        "--threads 1 --data-root somewhere --no-figures --tag colour=red"
    )


def test_what_is_no_experiment_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadRequest, match=r"experiment: .* is none"):
        harness.run_experiment(dict)  # type: ignore[arg-type]
