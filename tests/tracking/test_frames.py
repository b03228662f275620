"""Recorded runs as frames: known columns, exact values, selections; and the package's functions."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Checkout, Recorded
from unusual_store import FOREIGN, make_unusual_store

import harness
from harness.base.errors import BadRequest
from harness.tracking.frames import DTYPES, _frame, ordered_columns, run_columns
from harness.tracking.reader import open_reader
from harness.tracking.schema import StoredRun


@pytest.fixture(scope="module")
def database(group: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout, _ = group
    path = tmp_path_factory.mktemp("frames") / "store" / "mlflow.db"
    make_unusual_store(checkout.store, path)
    return path


@pytest.fixture(autouse=True)
def used(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")


# ---- frames ----


def test_a_frame_of_runs_has_the_documented_columns(group: Recorded) -> None:
    _, ended = group
    frame = harness.runs()
    assert list(frame)[: len(DTYPES)] == list(DTYPES)
    assert {name: str(frame[name].dtype) for name in DTYPES} == DTYPES
    assert list(harness.runs(filter="metrics.y > 100")) == list(DTYPES)
    assert list(frame["run_id"]) == [run.run_id for run in open_reader().runs()]
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


def test_parameters_have_the_dtype_of_their_values(group: Recorded) -> None:
    _, ended = group
    frame = harness.runs("softmax_regression", filter="tags.harness.outcome = 'completed'")
    frame = frame[frame["run_id"] != ended.run_id]
    children = harness.runs(run_ids=frame["run_id"])
    kinds = {name: str(children[f"params.{name}"].dtype) for name in ("seed", "batch_size", "lr")}
    assert kinds == {"seed": "Int64", "batch_size": "Int64", "lr": "float64"}
    assert str(children["params.capture_graph"].dtype) == "boolean"
    assert str(children["params.dataset"].dtype) == "str"
    assert set(children["params.lr"].dropna()) == {0.1}
    # The group's seed is a range: text among numbers.
    assert str(harness.runs()["params.seed"].dtype) == "object"
    assert str(harness.runs()["seed"].dtype) == "Int64"


def test_text_that_looks_like_a_number_stays_text() -> None:
    (row,) = harness.runs("Default").to_dict("records")
    values = {name: row[f"params.{name}"] for name in FOREIGN}
    assert values == {
        **{"x": "007", "version": "1.10", "big": 2**70, "lr": 0.1, "on": True, "n": "nan"},
    }


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "Int64"),
        ([2**63 - 1, -(2**63)], "Int64"),
        ([2**63 - 1, None], "Int64"),
        ([2**63, 1], "object"),
        ([2**2000, 0.5], "object"),
        ([0.5, 1], "float64"),
        ([0.5, 2**53 + 1], "object"),
        ([True, False], "boolean"),
        ([True, 1], "object"),
        (["1.10", "1.1"], "str"),
        (["007", 7], "object"),
        ([None, "x"], "str"),
    ],
)
def test_a_frame_holds_every_value_exactly(values: list[Any], dtype: str) -> None:
    tags = [{"harness.parameters": json.dumps({"x": value, "seed": value})} for value in values]
    frame = _frame([StoredRun("0" * 32, "", "some", 0, None, given) for given in tags])
    assert str(frame["params.x"].dtype) == dtype
    found = [None if pd.isna(value) else value for value in frame["params.x"]]
    assert found == values
    if dtype in ("str", "object"):
        assert list(map(type, found)) == list(map(type, values))
    seeds = [value if type(value) is int else None for value in values]
    assert [None if pd.isna(value) else value for value in frame["seed"]] == seeds


def test_columns_are_in_one_order() -> None:
    run = StoredRun(
        "0" * 32,
        "name",
        "some",
        1_700_000_000_123,
        None,
        {"user.b": "1", "harness.trial": "3", "mlflow.user": "x", "harness.data.test_sha256": "d"},
        {"b": "1", "a": "[1, 2]"},
        {"y": 1.0, "nan": math.nan},
    )
    values = run_columns(run)
    assert ordered_columns(reversed(values)) == [
        *DTYPES,
        *("params.a", "params.b", "metrics.nan", "metrics.y", "data.test"),
        *("tags.harness.trial", "tags.user.b"),
    ]
    assert values["metrics.nan"] is None
    assert values["seconds"] is None
    assert values["start_time"].isoformat() == "2023-11-14T22:13:20.123000+00:00"


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
    with pytest.raises(BadRequest, match="no run"):
        harness.runs("Default", run_ids=ended.run_id)


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
        _ = harness.nonsense  # type: ignore[attr-defined]


def test_an_experiment_runs_from_python_with_the_whole_record(checkout: Checkout) -> None:
    options = "data_root='somewhere', threads=1, figures=False, quiet=True, tags={'colour': 'red'}"
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
    with pytest.raises(BadRequest, match=r"experiment: expected an experiment like"):
        harness.run_experiment(dict)  # type: ignore[arg-type]
