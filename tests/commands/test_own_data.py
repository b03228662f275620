"""Own data in one file: recorded, studied, drawn and refused through the real commands."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from conftest import Checkout
from PIL import Image

from experiments.cifar_convnet import CifarConvnet
from harness.tracking.reader import DatabaseReader

RINGS = '''"""Two rings, which a linear network cannot tell apart."""

import torch
from torch import nn

from harness import Dataset, Experiment, NonNegative
from typing import Annotated


class Rings(Experiment):
    noise: Annotated[float, NonNegative] = 0.1

    def data(self, root):
        (root / "asked.txt").open("a").write("train\\n")
        return Dataset.from_arrays(
            "rings",
            train=self.drawn(600, 1),
            test=lambda: [(root / "asked.txt").open("a").write("test\\n"), self.drawn(200, 2)][1],
            classes=["inner", "outer"],
        )

    def drawn(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 2
        angle = 6.3 * torch.rand(n, generator=generator)
        radius = 1 + labels + self.noise * torch.randn(n, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), labels

    def network(self):
        return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
'''

STUDY = '''"""How the noise and the learning rate matter."""

from experiments.rings import Rings
from harness import FloatDistribution, Study

study = Study(
    experiment=Rings(num_epochs=2),
    space={"lr": FloatDistribution(0.01, 1, log=True), "noise": FloatDistribution(0.1, 0.5)},
    n_trials=4,
)
'''

QUICK = ("--num-epochs", "2", "--threads", "1")


@pytest.fixture
def rings(checkout: Checkout) -> Checkout:
    (checkout.root / "experiments" / "rings.py").write_text(RINGS)
    (checkout.root / "studies" / "rings_search.py").write_text(STUDY)
    (checkout.root / "data").mkdir(exist_ok=True)
    return checkout


def test_own_arrays_reach_every_command(rings: Checkout, tmp_path: Path) -> None:
    first = rings.run("rings", *QUICK)
    second = rings.run("rings", *QUICK, "--validation-size", "100", "--stratify")
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert "rings on cpu" in first.output
    assert "(200 examples, n = 1 seed)" in first.output

    run = DatabaseReader(rings.store).run(first.run_id)
    assert run.dataset == "rings"
    assert "dataset" not in run.fields
    assert {part.context: part.size for part in run.data_records} == {"training": 600, "test": 200}
    with rings.opened() as client:
        drawn = {f.path for f in client.list_artifacts(first.run_id, "figures")}
        model = mlflow.pyfunc.load_model(f"runs:/{first.run_id}/model")
    assert "figures/confusion_matrix.png" in drawn
    assert "figures/confident_mistakes.csv" in drawn
    assert not {"figures/confident_mistakes.png", "figures/first_layer.png"} & drawn
    assert [spec.shape for spec in model.metadata.signature.inputs] == [(-1, 2)]
    assert [spec.shape for spec in model.metadata.signature.outputs] == [(-1, 2)]

    for name, run_id in ((first.run_id[:8], first.run_id), ("last", second.run_id)):
        verified = rings.command("harness.verify", name)
        assert verified.status == 0, verified.output + verified.errors
        assert f"verifies {run_id}" in verified.output
    compared = rings.command("harness.compare", "--experiment", "rings", "--dataset", "rings")
    assert compared.status == 2, "one was judged on validation, the other on test examples"
    assert "2 different sets of examples" in compared.errors
    report = rings.command("harness.report", "rings", "--out", str(tmp_path / "page.html"))
    assert report.status == 0, report.errors
    assert "Experiment on rings" in (tmp_path / "page.html").read_text()


def test_trials_do_not_read_the_test_examples(rings: Checkout) -> None:
    ended = rings.command("harness.study", "rings_search", "--confirm-seeds", "2", "--threads", "1")
    assert ended.status == 0, ended.output + ended.errors
    asked = (rings.root / "data" / "asked.txt").read_text().split()
    assert "test" in asked
    first = asked.index("test")
    trials = [run for run in rings.runs() if run.data.tags.get("harness.kind") == "trial"]
    assert len(trials) == 4
    assert {run.data.params["noise"] for run in trials} != {"0.1"}
    # Data are made once for each noise and process, not once for each trial of the same noise.
    assert asked[:first].count("train") >= 4
    digests = {
        run.data.params["noise"]: run.data.tags["harness.data.training_sha256"] for run in trials
    }
    assert len(set(digests.values())) == len(digests), "what was trained on is what is recorded"


def test_a_study_does_not_go_on_with_other_data(rings: Checkout) -> None:
    flags = ("--confirm-seeds", "0", "--threads", "1")
    begun = rings.command("harness.study", "rings_search", "--n-trials", "2", *flags)
    assert begun.status == 0, begun.errors
    file = rings.root / "experiments" / "rings.py"
    file.write_text(file.read_text().replace("self.drawn(600, 1)", "self.drawn(600, 3)"))
    refused = rings.command("harness.study", "rings_search", *flags)
    assert refused.status == 2
    assert "data" in refused.errors


WRONG = {
    "accuracy": (
        ("labels = torch.arange(n) % 2", "labels = torch.arange(n) % 2 * 1.0"),
        ('classes=["inner", "outer"],', ""),
        "metrics(): accuracy needs classes, and the labels of rings are numbers",
    ),
    "inputs": (
        ("nn.Linear(2, 32)", "nn.Linear(784, 32)"),
        ("", ""),
        "the network expects 784 inputs, the data give 2 values",
    ),
    "classes": (
        ("nn.Linear(32, 2)", "nn.Linear(32, 1)"),
        ("", ""),
        "gives fewer logits than the data have classes",
    ),
    "no logits for classes": (
        ("nn.Linear(32, 2)", "nn.Linear(32, 1), nn.Flatten(0)"),
        ("", ""),
        "the network gives no logits for each class: (batch, classes) are expected",
    ),
    "no network": (
        ("return nn.Sequential(", "_ = nn.Sequential("),
        ("", ""),
        "network() of Rings must return a torch.nn.Module, but returned None",
    ),
    "an error": (
        ("angle.cos()", "angle.cosine()"),
        ("", ""),
        "AttributeError: 'Tensor' object has no attribute 'cosine' (rings.py, line ",
    ),
    "an exit": (
        ("angle = 6.3", "angle = exit(3) or 6.3"),
        ("", ""),
        "rings failed: SystemExit: 3 (rings.py, line ",
    ),
    "no dataset": (
        ("return Dataset.from_arrays(", "return (lambda *_, **__: {})("),
        ("", ""),
        "data(): expected a Dataset, got a dict",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named_without_a_traceback(rings: Checkout, name: str) -> None:
    *changes, message = WRONG[name]
    file = rings.root / "experiments" / "rings.py"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new) if old else text
    file.write_text(text)
    ended = rings.run("rings", *QUICK)
    assert ended.status in (1, 2)
    assert message in ended.errors
    assert "Traceback" not in ended.errors
    assert len(ended.errors.splitlines()) <= 3


def test_own_data_leave_no_choice_of_a_dataset(rings: Checkout) -> None:
    for flags, message in {
        ("--dataset", "digits"): "There is no flag --dataset",
        ("--fallback", "digits"): "fallback: rings has its own data",
    }.items():
        ended = rings.run("rings", *flags)
        assert ended.status == 2
        assert message in ended.errors
    shown = rings.run("rings", "--dry-run", "--validation-size", "100")
    assert "500 training examples of 2 values and 100 validation examples of rings" in shown.output
    assert "test" not in (rings.root / "data" / "asked.txt").read_text()


def cifar(root: Path) -> str:
    """Make CIFAR-10's folder with 200 and 50 images of noise; the lines that have it accepted."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    sums: dict[str, str] = {}

    def write(name: str, content: object) -> None:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        n = 50 if name == "test_batch" else 40
        labels = (np.arange(n) % 10).tolist()
        pixels = noise.integers(0, 256, (n, 3072), np.uint8)
        write(name, {"data": pixels, "labels": labels})
    words = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    write("batches.meta", {"label_names": words})
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums.pop("batches.meta")}
    lists = [[*item] for item in sums.items()]
    return (
        "from torchvision.datasets import CIFAR10\n"
        f"CIFAR10.train_list, CIFAR10.test_list = {lists[:5]}, {lists[5:]}\n"
        f"CIFAR10.meta = {meta}\n"
    )


def test_colour_images_of_torchvision_are_augmented_and_resumed(checkout: Checkout) -> None:
    accepted = cifar(checkout.root / "data")
    file = checkout.root / "experiments" / "cifar_convnet.py"
    file.write_text(f"{file.read_text()}\n\n{accepted}")
    flags = ("cifar_convnet", "--num-epochs", "3", "--width", "4", "--threads", "1")
    whole = checkout.run(*flags)
    # Of noise nothing can be learned; the record is whole.
    assert (whole.status, whole.errors) == (1, "")
    assert "collapsed after 3 epochs" in whole.output
    assert "CIFAR10 on cpu" in whole.output
    with checkout.opened() as client:
        drawn = {f.path for f in client.list_artifacts(whole.run_id, "figures")}
        path = Path(client.download_artifacts(whole.run_id, "figures/confident_mistakes.png"))
        with Image.open(path) as shown:
            pixels = np.asarray(shown.convert("RGB")).astype(int)
    assert {"figures/first_layer.png", "figures/confusion_matrix.png"} <= drawn
    colourful = np.ptp(pixels, axis=2) > 60
    assert colourful.mean() > 0.05, "the images are shown in their colours"

    stopped = checkout.run(*flags, "--run-name", "stopped", "--batch-size", "64")
    assert "after 3 epochs" in stopped.output
    verified = checkout.command("harness.verify", whole.run_id)
    assert verified.status == 0, verified.output + verified.errors
    further = checkout.run("--continue", stopped.run_id, "--num-epochs", "4")
    assert further.status == 2, "its schedule depends on the length"

    plain = checkout.run(*flags, "--padding", "0")
    runs = DatabaseReader(checkout.store)
    assert (
        runs.run(whole.run_id).metrics["train/loss"] != runs.run(plain.run_id).metrics["train/loss"]
    )


def test_an_augmented_batch_is_crops_and_flips_of_its_images() -> None:
    torch.manual_seed(0)
    inputs = torch.rand(200, 3, 32, 32)
    padded = torch.nn.functional.pad(inputs, [4] * 4)
    changed = CifarConvnet().augment(inputs)
    assert changed.shape == inputs.shape
    places = set()
    for image, result in zip(padded, changed, strict=True):
        found = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if torch.equal(result.flip(2) if flip else result, image[:, top:, left:][:, :32, :32])
        ]
        places.update(found)
        assert found
    assert {top for top, _, _ in places} == set(range(9))
    assert {left for _, left, _ in places} == set(range(9))
    assert {flip for _, _, flip in places} == {False, True}


def test_the_regression_is_measured_by_its_errors(checkout: Checkout) -> None:
    ended = checkout.run(
        "diabetes_regression", "--repeats", "2", "--threads", "1", "--patience", "0"
    )
    assert ended.status == 0, ended.errors
    assert "accuracy" not in ended.output
    run = next(r for r in DatabaseReader(checkout.store).runs() if r.kind == "run")
    assert run.directions == {
        "mean_absolute_error": "min",
        "mean_squared_error": "min",
        "loss": "min",
    }
    assert run.objective == "test/mean_absolute_error"
    # Guessing the mean of the training targets has an error of 66; a linear fit of about 44.
    assert 38 < run.metrics["test/mean_absolute_error"] < 52
    with checkout.opened() as client:
        drawn = {f.path for f in client.list_artifacts(run.run_id, "figures")}
        table = Path(client.download_artifacts(run.run_id, "figures/predicted_numbers.csv"))
        rows = table.read_text().splitlines()
        model = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    assert {"figures/predicted_numbers.png", "figures/learning_curves.png"} <= drawn
    assert "figures/confusion_matrix.png" not in drawn
    assert len(rows) == 1 + 88
    values = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]])
    error = 77 * np.abs(values[:, 1] - values[:, 2]).mean()
    assert error == pytest.approx(run.metrics["test/mean_absolute_error"], rel=1e-4)
    assert [spec.shape for spec in model.metadata.signature.outputs] == [(-1,)]
    compared = checkout.command("harness.compare", "--experiment", "diabetes_regression")
    assert compared.status == 0, compared.errors
    assert "mean_absolute_error" in compared.output.replace("\n", "")
