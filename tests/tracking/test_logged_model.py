"""The logged model: loaded by MLflow alone, with the accuracy that its run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import QUICK, Checkout, Recorded, once

from harness.training.builtin_datasets import data_root, open_dataset
from harness.training.dataset import Examples


def accuracy(model: Any, images: Examples, batch_size: int) -> float:
    hits = 0
    with torch.no_grad():
        for batch, labels in images.batches(batch_size):
            hits += int((model(batch).argmax(dim=1) == labels).sum())
    return hits / len(images)


@pytest.mark.parametrize("name", ["baseline", "softmax_regression", "dropout_mlp", "lenet"])
def test_the_logged_model_has_the_recorded_accuracy_at_any_batch_size(
    name: str, tmp_path_factory: pytest.TempPathFactory, finished: Recorded
) -> None:
    checkout, ended = finished
    if name != "baseline":
        checkout, ended = once(tmp_path_factory, f"model_{name}", (name, *QUICK, "--no-figures"))
    uri = f"runs:/{ended.run_id}/model"
    images = open_dataset("digits", data_root()).test
    with checkout.opened() as client:
        recorded = client.get_run(ended.run_id).data.metrics["test/accuracy"]
        model = mlflow.pytorch.load_model(uri)
        served = mlflow.pyfunc.load_model(uri)
        info = mlflow.models.get_model_info(uri)
        example = served.input_example
    assert 0.1 < recorded < 1
    for batch_size in (1, 7, 256, 360):
        assert accuracy(model, images, batch_size) == recorded
    # Dropout is off, and a network's output does not depend on its neighbours in the batch.
    some, _ = images.batch(torch.arange(5))
    assert torch.equal(model(some), model(some))

    assert np.array_equal(served.predict(some.numpy()), model(some).detach().numpy())
    with pytest.raises(mlflow.MlflowException, match="schema"):
        served.predict(some.numpy().reshape(5, 784))
    assert [spec.shape for spec in info.signature.inputs] == [(-1, 1, 28, 28)]
    assert [spec.shape for spec in info.signature.outputs] == [(-1, 10)]
    train = open_dataset("digits", data_root()).split(0, 0)[0]
    assert np.array_equal(example, train.batch(torch.arange(len(example)))[0].numpy())


def test_the_model_belongs_to_its_run(finished: Recorded) -> None:
    checkout, ended = finished
    with checkout.opened() as client:
        run = client.get_run(ended.run_id)
        assert run.outputs
        (output,) = run.outputs.model_outputs
        model = client.get_logged_model(output.model_id)
    assert (model.name, str(model.status), model.source_run_id, output.step) == (
        *("model", "READY", run.info.run_id, 2),
    )
    assert model.params == run.data.params


def test_a_moved_checkout_loses_nothing(checkout: Checkout, tmp_path: Path) -> None:
    ended = checkout.run("softmax_regression", *QUICK, "--no-figures")
    moved = Checkout(checkout.root.rename(tmp_path / "moved"))
    with moved.opened() as client:
        run = client.get_run(ended.run_id)
        names = {artifact.path for artifact in client.list_artifacts(ended.run_id)}
        assert {"experiment.json", "environment.txt"} <= names
        described = Path(client.download_artifacts(ended.run_id, "experiment.json"))
        assert b"softmax_regression" in described.read_bytes()
        model = mlflow.pytorch.load_model(f"runs:/{ended.run_id}/model")
        images = open_dataset("digits", data_root()).test
        assert accuracy(model, images, 360) == run.data.metrics["test/accuracy"]
    assert not checkout.root.exists()
