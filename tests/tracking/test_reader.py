"""Both readers: they return what MLflow's own client does, in few queries, and write nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Checkout, Recorded
from mlflow import MlflowClient
from unusual_store import make_unusual_store

import harness
from harness.base import project
from harness.base.errors import BadRequest, RunFailed
from harness.base.ownership import Owner
from harness.tracking import pages, reader
from harness.tracking.reader import ClientReader, DatabaseReader, Reader, open_reader
from harness.tracking.schema import StoredRun
from harness.tracking.store_address import fingerprint


@pytest.fixture(scope="module")
def database(group: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout, _ = group
    path = tmp_path_factory.mktemp("reading") / "a store #1" / "mlflow.db"
    make_unusual_store(checkout.store, path)
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
        with pages.serving(pages.LOOPBACK, port) as served:
            patch.setenv("MLFLOW_TRACKING_TOKEN", served.token)
            yield served.address


@pytest.fixture(params=["database", "client"])
def either(request: pytest.FixtureRequest, database: Path) -> Reader:
    """Each of the two readers of one store."""
    return DatabaseReader(database) if request.param == "database" else ClientReader()


# ---- both readers return the same ----


def everything(reader: Reader) -> dict[str, Any]:
    """All that a reader returns."""
    runs = reader.runs()
    ids = [run.run_id for run in runs]
    found: dict[str, Any] = comparable(
        {
            "experiments": sorted(reader.experiments()),
            "runs": [vars(run) for run in runs],
            "of one experiment": [run.run_id for run in reader.runs("softmax_regression")],
            "one by one": [vars(reader.run(run_id)) for run_id in ids],
            "by letters": [run.run_id for run in reader.runs(run_ids=[i[:12] for i in ids])],
            "children": [[run.run_id for run in reader.children(run_id)] for run_id in ids],
            "history": reader.history(ids),
        }
    )
    return found


def comparable(values: Any) -> Any:
    """The same with NaN as a word, which equals itself."""
    return eval(repr(values), {"nan": "nan", "inf": math.inf})


def test_the_database_holds_what_mlflow_returns(database: Path) -> None:
    by_database = everything(DatabaseReader(database))
    assert by_database == everything(ClientReader())
    # And there was something to return.
    assert len(by_database["runs"]) == 8
    assert by_database["runs"] == by_database["one by one"]
    assert by_database["by letters"] == [run["run_id"] for run in by_database["runs"]]
    assert sorted(map(len, by_database["children"])) == [0] * 7 + [3]
    assert len(by_database["history"]) > 100


def test_a_server_returns_the_same_in_few_answers(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = DatabaseReader(database)
    asked = []
    send = requests.Session.send

    def counted(session: Any, request: Any, **options: Any) -> Any:
        asked.append(request.path_url.partition("?")[0].rpartition("/")[2])
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", counted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    by_client = ClientReader()
    runs = by_client.runs()
    ids = [run.run_id for run in runs]
    history = by_client.history(ids)
    assert comparable([vars(run) for run in runs]) == comparable(
        [vars(run) for run in by_database.runs()]
    )
    assert comparable(history) == comparable(by_database.history(ids))
    metrics = {name for _, _, name, _ in history}
    judged = {name for run in runs for name in run.metrics if run.best_of(name)}
    # What a single run alone has is not worth another kind of question.
    assert asked.count("get-history-bulk") <= len(metrics) + len(judged)
    assert asked.count("search") == 2
    assert len(asked) <= 2 + len(metrics) + len(judged)
    # Here each run is asked for by itself.
    assert everything(by_client) == everything(by_database)


def test_answers_that_are_too_long_are_asked_for_in_parts(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = everything(DatabaseReader(database))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setattr(reader, "LONGEST_HISTORY", 5)
    monkeypatch.setattr(reader, "MOST_RUNS", 3)
    monkeypatch.setattr(reader, "PAGE", 2)
    assert everything(ClientReader()) == by_database


def test_a_server_without_that_address_is_asked_run_by_run(
    database: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_database = everything(DatabaseReader(database))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setattr(reader, "HISTORIES", "/ajax-api/2.0/mlflow/metrics/not-there")
    assert everything(ClientReader()) == by_database


def test_infinity_and_nan_are_read_as_such(either: Reader) -> None:
    runs = either.runs(filter="tags.colour = 'blue'")
    last = {str(run.metrics["train/loss"]): run.best.get("train/loss") for run in runs}
    assert last == {"inf": 2.0, "0.5": -math.inf, "nan": None}
    values = [
        value for _, _, name, value in either.history([r.run_id for r in runs]) if name == "x"
    ]
    assert sorted(map(str, values)) == ["0.5", "8.0", "8.0", "8.0", "inf", "nan"]
    # What was recorded last counts; a metric without a direction, or of no part of the data, has no
    # best value.
    assert {name for run in runs for name in run.best} == {"train/loss"}
    assert sorted(str(run.num_epochs) for run in runs) == ["1", "2", "3"]


def test_artifacts_are_read_from_their_folder(
    group: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, ended = group
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout.store}")
    monkeypatch.setattr(project, "root", lambda: checkout.root)
    monkeypatch.chdir(checkout.root)
    for source in (DatabaseReader(checkout.store), ClientReader()):
        content = source.artifact(ended.run_id, "experiment.json")
        assert json.loads(content or b"")["experiment"] == "softmax_regression"
        assert source.artifact(ended.run_id, "nothing.json") is None
        assert source.artifact("0" * 32, "experiment.json") is None


def test_an_artifact_may_lie_at_an_address(
    database: Path, tmp_path: Path, group: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder #2"
    client = MlflowClient(f"sqlite:///{database}")
    experiment_id = client.create_experiment("by address", folder.as_uri())
    try:
        run_id = client.create_run(experiment_id).info.run_id
        client.log_text(run_id, "what is inside", "file.txt")
        assert DatabaseReader(database).artifact(run_id, "file.txt") == b"what is inside"
    finally:
        client.delete_experiment(experiment_id)


# ---- one run ----


def test_the_first_letters_of_an_id_are_enough(either: Reader) -> None:
    run = either.runs("softmax_regression")[0]
    assert either.find(run.run_id).run_id == run.run_id
    assert either.find(run.run_id[:8]).run_id == run.run_id
    assert comparable(vars(either.find(run.run_id))) == comparable(vars(either.run(run.run_id)))


@pytest.mark.parametrize("identity", ["nonsense", "", "0" * 32, "%", "last one", "../../x"])
def test_an_unknown_run_is_a_bad_request(either: Reader, identity: str) -> None:
    with pytest.raises(
        BadRequest, match=r"^resume: there is no run .* here\. The latest: \w{8} \("
    ):
        either.find(identity, "resume")
    with pytest.raises(BadRequest, match="run: there is no run"):
        either.run(identity)
    with pytest.raises(BadRequest, match="run: there is no run"):
        either.runs(run_ids=[identity])


def test_deleted_runs_are_unknown(database: Path, either: Reader) -> None:
    client = MlflowClient(f"sqlite:///{database}")
    (run,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], run_view_type=2
    )
    assert run.info.lifecycle_stage == "deleted"
    with pytest.raises(BadRequest, match="there is no run"):
        either.run(run.info.run_id)
    with pytest.raises(BadRequest, match="there is no run"):
        either.find(run.info.run_id)


def test_letters_that_several_ids_start_with_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [
        reader._Head(f"{start}{'0' * 28}", "x", "some", 0, 0) for start in ("abcd", "abce", "f00d")
    ]
    monkeypatch.setattr(DatabaseReader, "_heads", lambda self, *_: heads)
    with pytest.raises(BadRequest, match=r"2 runs start with 'abc': abcd000 \(x\), abce000"):
        open_reader().find("abc")
    with pytest.raises(BadRequest, match="Did you mean abcd0000"):
        open_reader().find("abcd0001")
    assert open_reader().find("f").run_id == f"f00d{'0' * 28}"


def test_last_is_the_latest_run_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(BadRequest, match="no run here that was interrupted"):
        open_reader().find("last")
    client, start = MlflowClient(uri), iter(range(1000))
    alive = Owner.current()
    dead = dataclasses.replace(alive, started="before")
    elsewhere = Owner(1, "1", "1", "another container", "another machine")

    def recorded(outcome: str, owner: Owner = dead, **others: str) -> str:
        tags = {"harness.kind": "run", "harness.outcome": outcome, "harness.owner": str(owner)}
        tags |= {"harness.experiment": "baseline", "harness.fields": '{"lr": 0.1}'}
        names = {"kind": "harness.kind", "parent": "mlflow.parentRunId"}
        tags |= {names[name]: value for name, value in others.items()}
        return str(client.create_run("0", start_time=next(start), tags=tags).info.run_id)

    def skip() -> None:
        """Record runs that are not meant, though they are later."""
        recorded("completed")
        recorded("diverged")
        recorded("collapsed")
        recorded("running", alive)
        recorded("running", elsewhere)
        recorded("interrupted", kind="trial")
        recorded("interrupted", parent="0" * 32)

    skip()
    for source in (open_reader(), ClientReader()):
        with pytest.raises(BadRequest, match="no run here that was interrupted"):
            source.find("last")
    for outcome in ("running", "interrupted", "failed"):
        run_id = recorded(outcome)
        skip()
        assert open_reader().find("last").run_id == run_id
        assert ClientReader().find("last").run_id == run_id


def test_a_run_that_began_while_the_server_was_away_keeps_its_first_id(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setattr(project, "mlruns", lambda: tmp_path)
    group = next(run for run in ClientReader().runs() if run.kind == "group")
    key = "ab" * 16
    ids = tmp_path / "spool" / fingerprint() / "ids"
    ids.mkdir(parents=True)
    (ids / key).write_text(group.run_id)
    source = ClientReader()
    assert source.find(key) == source.find(key[:8]) == source.run(key) == group
    assert source.runs(run_ids=[key]) == [group]
    assert len(source.children(key)) == 3


# ---- values ----


def stored(params: dict[str, str], tags: dict[str, str] | None = None) -> StoredRun:
    return StoredRun("0" * 32, "name", "some", 0, None, tags or {}, params)


def test_parameters_keep_the_type_that_they_were_recorded_with() -> None:
    typed = {
        "version": "1.10",
        "code": "007",
        "truth": "True",
        "seed": 2**63 - 1,
        "big": 2**90 + 1,
        "lr": 0.1,
        "round": 1.0,
        "on": True,
        "none": None,
    }
    run = stored(
        {name: str(value) for name, value in typed.items()},
        {"harness.parameters": json.dumps(typed), "harness.kind": "run"},
    )
    assert run.parameters == typed
    assert {name: type(value) for name, value in run.parameters.items()} == {
        name: type(value) for name, value in typed.items()
    }
    assert run.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("007", "007"),
        ("+7", "+7"),
        ("1_000", "1_000"),
        (str(2**90 + 1), 2**90 + 1),
        ("9" * 5000, "9" * 5000),
        ("0.1", 0.1),
        ("1.0", 1.0),
        ("1.10", "1.10"),
        ("1e-05", 1e-05),
        ("1e-5", "1e-5"),
        ("inf", math.inf),
        ("nan", "nan"),
        ("True", True),
        ("true", "true"),
        ("None", "None"),
        ("", ""),
    ],
)
def test_without_a_recorded_type_text_is_a_number_if_the_number_is_written_so(
    text: str, value: Any
) -> None:
    found = stored({"x": text}).parameters["x"]
    assert (found, type(found)) == (value, type(value))


def test_a_tag_that_mlflow_has_cut_off_leaves_the_text() -> None:
    run = stored({"lr": "0.1"}, {"harness.parameters": '{"lr": 0.', "harness.fields": "{"})
    assert run.parameters == {"lr": 0.1}
    assert run.fields == {}


def test_a_run_of_the_harness_has_its_whole_description(group: Recorded) -> None:
    _, ended = group
    reader = open_reader()
    parent = reader.run(ended.run_id)
    assert (parent.kind, parent.seed, parent.is_ours) == ("group", None, True)
    children = reader.children(ended.run_id)
    assert [run.seed for run in children] == [6, 5, 4]
    for run in children:
        assert (run.kind, run.outcome, run.experiment) == ("run", "completed", "softmax_regression")
        assert run.parent == ended.run_id
        assert run.fields.items() <= run.parameters.items()
        assert run.parameters["lr"] == 0.1
        assert run.parameters["capture_graph"] is False
        assert run.dataset == "digits"
        assert run.data.keys() == {"training", "test"}
        assert run.command.startswith("python -m harness.run softmax_regression")
        assert run.owner
        assert run.owner.is_dead(last_seen=0)
    (foreign,) = reader.runs("Default")
    assert (foreign.kind, foreign.outcome, foreign.is_ours, foreign.owner) == ("", "", False, None)


# ---- stores that cannot be read ----


def test_reading_writes_nothing(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout.store}")
    assert harness.runs().empty
    assert harness.runs(filter="params.lr = '0.1'").empty
    assert harness.epochs().empty
    with pytest.raises(BadRequest, match=r"there is no run '0' here\. There are none here"):
        open_reader().find("0")
    assert open_reader().artifact("0" * 32, "x") is None
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
    with pytest.raises(RunFailed, match="cannot be read"):
        open_reader().find("last")


def test_an_address_of_no_store_is_a_bad_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense")
    with pytest.raises(BadRequest, match="MLFLOW_TRACKING_URI: 'nonsense'"):
        harness.runs()
