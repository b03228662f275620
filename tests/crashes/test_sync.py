"""A tracking server that goes away: what it missed waits on disk, and is sent once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from conftest import Checkout, Server, processes_in
from mlflow import MlflowClient
from mlflow.entities import Run

LONG = ("baseline", "--dataset", "digits", "--threads", "1", "--num-epochs", "60", "--lr", "0.05")


def numbers(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric of every epoch, in order, but for clocks and memory."""
    return {
        name: [
            (m.step, m.value)
            for m in sorted(client.get_metric_history(run_id, name), key=lambda m: m.step)
        ]
        for name in client.get_run(run_id).data.metrics
        if not name.startswith(("time/", "memory/", "model/"))
    }


def recorded(server: Server) -> list[Run]:
    """The runs that a server was sent in this test, the first one first."""
    client = MlflowClient(server.uri)
    found = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(found, order_by=["attributes.start_time ASC"]))


def artifacts(server: Server, run_id: str, folder: str | None = None) -> list[str]:
    return [entry.path for entry in MlflowClient(server.uri).list_artifacts(run_id, folder)]


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.new(tmp_path_factory.mktemp("tracking") / "server")
    yield server
    server.stop()


@pytest.fixture
def server(only_server: Server) -> Iterator[Server]:
    """A server at work, the same for all tests: it takes seconds to start."""
    if not only_server.answers:
        only_server.start()
    yield only_server
    if not only_server.answers:
        only_server.start()
    for run in recorded(only_server):
        MlflowClient(only_server.uri).delete_run(run.info.run_id)


@contextlib.contextmanager
def running(checkout: Checkout, server: Server, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = checkout.start(
        "harness.run",
        *words,
        changes={"MLFLOW_TRACKING_URI": server.uri},
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def epochs(output: IO[str] | None, n: int) -> None:
    """Wait until so many more epochs were printed."""
    assert output
    for _ in range(n):
        assert output.readline().startswith("epoch")


def spooled(checkout: Checkout) -> list[Path]:
    return sorted((checkout.root / "mlruns" / "spool").glob("*/*/*.json"))


def test_a_server_that_goes_away_and_comes_back_within_a_run_misses_nothing(
    checkout: Checkout, server: Server
) -> None:
    undisturbed = checkout.run(*LONG).run_id
    with running(checkout, server, *LONG[:-4], "--num-epochs", "600", "--lr", "0.05") as process:
        epochs(process.stdout, 5)
        server.stop()
        epochs(process.stdout, 20)
        assert spooled(checkout)
        server.start()
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "the tracking server is away" in errors
    assert "the tracking server is back; everything was sent" in errors
    assert spooled(checkout) == []
    (run,) = recorded(server)
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FINISHED", "completed")
    there = numbers(MlflowClient(server.uri), run.info.run_id)
    assert [step for step, _ in there["train/loss"]] == list(range(1, 601))
    with checkout.opened() as client:
        here = numbers(client, undisturbed)
    assert here.keys() == there.keys()
    assert all(there[name][:60] == here[name] for name in here)


def test_what_a_run_could_not_send_is_sent_later_and_once(
    checkout: Checkout, server: Server
) -> None:
    with running(checkout, server, *LONG) as process:
        epochs(process.stdout, 3)
        server.stop()
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "python -m harness.sync" in errors
    assert "Traceback" not in errors
    changes = {"MLFLOW_TRACKING_URI": server.uri}
    away = checkout.command("harness.sync", changes=changes)
    assert away.status == 1
    assert "Traceback" not in away.errors
    assert len(away.errors.splitlines()) <= 2
    waiting = [path.read_bytes() for path in spooled(checkout)]
    assert len(waiting) > 40

    server.start()
    # As if the power had gone after the sending, before the file of what was sent was deleted.
    (queue,) = {path.parent for path in spooled(checkout)}
    for content in (*waiting, *waiting):
        (queue / f"{1_000_000 + len(list(queue.glob('*.json')))}.json").write_bytes(content)
    synced = checkout.command("harness.sync", changes=changes)
    assert synced.status == 0, synced.errors
    assert "0 still waiting" in synced.output
    assert spooled(checkout) == []
    (run,) = recorded(server)
    run_id = run.info.run_id
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FINISHED", "completed")
    there = numbers(MlflowClient(server.uri), run_id)
    assert all([step for step, _ in there[name]] == list(range(1, 61)) for name in there)
    assert {"experiment.json", "environment.txt", "figures"} <= set(artifacts(server, run_id))
    assert "figures/learning_curves.png" in artifacts(server, run_id, "figures")
    models = MlflowClient(server.uri).search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run_id}'"
    )
    assert len(models) == 1
    listed = MlflowClient(server.uri).list_logged_model_artifacts(models[0].model_id)
    assert "MLmodel" in [entry.path for entry in listed]


def test_a_run_that_is_killed_while_its_server_is_away_goes_on_to_the_same_numbers(
    checkout: Checkout, server: Server
) -> None:
    undisturbed = checkout.run(*LONG, "--no-figures").run_id
    with running(checkout, server, *LONG, "--no-figures") as process:
        epochs(process.stdout, 3)
        server.stop()
        epochs(process.stdout, 15)
        for recorder in processes_in(checkout.root, ["harness.tracking.recorder_process"]):
            os.kill(recorder, signal.SIGKILL)
        process.kill()
        process.communicate()
    assert spooled(checkout)
    server.start()
    changes = {"MLFLOW_TRACKING_URI": server.uri}
    synced = checkout.command("harness.sync", changes=changes)
    assert synced.status == 0, synced.errors
    (run,) = recorded(server)
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("KILLED", "interrupted")
    steps = [step for step, _ in numbers(MlflowClient(server.uri), run.info.run_id)["train/loss"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 17
    resumed = checkout.run("--resume", "last", "--quiet", changes=changes)
    assert resumed.status == 0, resumed.errors
    with checkout.opened() as client:
        assert numbers(MlflowClient(server.uri), run.info.run_id) == numbers(client, undisturbed)


def test_the_runs_of_a_group_that_begin_while_the_server_is_away_belong_to_it(
    checkout: Checkout, server: Server
) -> None:
    words = ("softmax_regression", *LONG[1:-4], "--num-epochs", "3", "--repeats", "3")
    with running(checkout, server, *words, "--no-figures") as process:
        epochs(process.stdout, 1)
        server.stop()
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    server.start()
    assert checkout.command("harness.sync", changes={"MLFLOW_TRACKING_URI": server.uri}).status == 0
    group, *children = recorded(server)
    assert re.search(f"^run {group.info.run_id}$", output, re.MULTILINE)
    assert [child.data.params["seed"] for child in children] == ["0", "1", "2"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {group.info.run_id}
    assert {run.info.status for run in (group, *children)} == {"FINISHED"}
    for child in children:
        history = MlflowClient(server.uri).get_metric_history(child.info.run_id, "test/accuracy")
        assert [metric.step for metric in history] == [1, 2, 3]


def test_without_a_server_there_is_nothing_to_send(checkout: Checkout) -> None:
    synced = checkout.command("harness.sync")
    assert synced.status == 0, synced.errors
    assert "0 writes sent, 0 still waiting" in synced.output
