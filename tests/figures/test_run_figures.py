"""Inspections and figures: what is drawn and written is what the network did, and nothing moves."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import nn

from experiments.baseline import Baseline
from experiments.dropout_mlp import DropoutMlp
from experiments.lenet import LeNet
from experiments.softmax_regression import SoftmaxRegression
from harness.base.inspection import (
    FirstLayer,
    Inspection,
    Mistakes,
    PredictedClasses,
    PredictedNumbers,
)
from harness.base.statistics import wilson_interval
from harness.figures import run_figures, style
from harness.training.builtin_datasets import CLASS_NAMES, open_dataset
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.loop import Training
from harness.training.predictions import inspect

LONG_NAMES = CLASS_NAMES["fashion-mnist"]


class Pooled(Experiment):
    """A network whose first layer sees no image: 49 means of 4x4 pixels, normalized."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.AvgPool2d(4), nn.Flatten(), nn.BatchNorm1d(49), nn.Dropout(0.5), nn.Linear(49, 10)
        )


class Wordy(Experiment):
    """A linear classifier with two outputs more than there are classes, which win at first."""

    def network(self) -> nn.Module:
        linear = nn.Linear(784, 12)
        nn.init.constant_(linear.bias[10:], 100.0)
        return nn.Sequential(nn.Flatten(), linear)


def trained(experiment: Experiment) -> Training:
    dataset = open_dataset("digits", Path())
    train, validation = dataset.split(experiment.validation_size, experiment.split_seed)
    training = Training(
        experiment,
        train,
        validation if experiment.validation_size else dataset.test,
        "validation" if experiment.validation_size else "test",
        Execution(),
        torch.device("cpu"),
    )
    list(training.epochs())
    return training


def digits(kind: type[Experiment], **fields: Any) -> Training:
    return trained(kind(**{"dataset": "digits", "num_epochs": 2, "batch_size": 64, **fields}))


@pytest.fixture(scope="module")
def training() -> Training:
    return digits(Baseline)


@pytest.fixture(scope="module")
def inspection(training: Training) -> Inspection:
    return inspect(training, LONG_NAMES)


def history_of(training: Training) -> list[tuple[int, dict[str, float]]]:
    return [(result.epoch, result.metrics) for result in training.history]


HISTORY = [
    (epoch, {f"{name}/{kind}": 1 / (epoch + 1) for name in ("train", "test") for kind in KINDS})
    for KINDS in [("loss", "accuracy")]
    for epoch in (1, 2, 3)
]


LOSSES = [1e-9, 0.0012, 0.12345, 1234.5, 250_000.0, 1e30]


def made(
    labels: Sequence[int], predictions: Sequence[int], layer: FirstLayer | None = None
) -> Inspection:
    """An inspection of random images with these classes, equally sure of all."""
    true, best = np.array(labels, np.int64), np.array(predictions, np.int64)
    sure = np.full(len(true), 0.75, np.float32)
    wrong = np.flatnonzero(true != best)[:24]
    images = np.random.default_rng(0).integers(0, 256, (len(wrong), 28, 28), np.uint8)
    mistakes = Mistakes(images, true[wrong], best[wrong], sure[wrong], wrong)
    predicted = PredictedClasses(LONG_NAMES, true, best, sure, mistakes)
    return Inspection("test", len(true), predicted, layer)


def classes_of(inspection: Inspection) -> PredictedClasses:
    assert isinstance(inspection.predicted, PredictedClasses)
    return inspection.predicted


def pictures_of(mistakes: Mistakes) -> NDArray[np.uint8]:
    assert mistakes.images is not None
    return mistakes.images


def layer_of(weights: NDArray[np.floating], size: int = 999) -> FirstLayer:
    units = np.arange(len(weights))
    return FirstLayer("linear", weights.astype(np.float32), units, size, units_are_classes=False)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height, in pixels, from the first chunk of a PNG file."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def assert_all_fits(figure: Figure) -> None:
    """Nothing leaves the page, and no two words of a line of axes overlap."""
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    for axes in figure.axes:
        words = [word for word in axes.texts if word.get_text()]
        for line in {word.get_position()[1] for word in words}:
            boxes = sorted(
                (word.get_window_extent() for word in words if word.get_position()[1] == line),
                key=lambda extent: extent.x0,
            )
            assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))


def words_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}


@pytest.mark.parametrize("kind", [Baseline, DropoutMlp, LeNet, SoftmaxRegression, Pooled])
def test_predictions_are_those_that_the_last_epoch_counted(kind: type[Experiment]) -> None:
    training = digits(kind)
    training.network.train()
    found = inspect(training, LONG_NAMES)
    counts = run_figures.confusion(classes_of(found), 10)
    assert counts.trace() / counts.sum() == training.history[-1].metrics["test/accuracy"]
    assert (
        counts.sum(axis=1).tolist() == np.bincount(classes_of(found).labels, minlength=10).tolist()
    )
    assert np.array_equal(classes_of(found).labels, training.evaluation_examples.labels.numpy())
    logits = training.network.eval()(training.evaluation_examples.batch(torch.arange(360))[0])
    sure, best = logits.softmax(dim=1).max(dim=1)
    assert np.array_equal(classes_of(found).predictions, best.numpy())
    np.testing.assert_allclose(classes_of(found).confidence, sure.detach().numpy(), rtol=1e-5)
    assert classes_of(found).confidence.dtype == np.float32


def test_mistakes_are_the_surest_wrong_predictions(
    training: Training, inspection: Inspection
) -> None:
    mistakes = classes_of(inspection).mistakes
    at = mistakes.positions
    assert len(at) == 24
    assert (mistakes.labels != mistakes.predictions).all()
    assert np.array_equal(mistakes.labels, classes_of(inspection).labels[at])
    assert np.array_equal(mistakes.predictions, classes_of(inspection).predictions[at])
    assert np.array_equal(mistakes.confidence, classes_of(inspection).confidence[at])
    assert (np.diff(mistakes.confidence) <= 0).all()
    wrong = np.flatnonzero(classes_of(inspection).labels != classes_of(inspection).predictions)
    others = classes_of(inspection).confidence[np.setdiff1d(wrong, at)]
    assert others.size
    assert others.max() <= mistakes.confidence.min()
    assert pictures_of(mistakes).dtype == np.uint8
    pixels = training.evaluation_examples.inputs[torch.from_numpy(at)].numpy()
    assert np.array_equal(pictures_of(mistakes), pixels.reshape(-1, 28, 28))


def test_validation_images_are_found_in_their_own_set() -> None:
    training = digits(Baseline, validation_size=300)
    found = inspect(training, LONG_NAMES, mistakes=5)
    images, labels = training.evaluation_examples.batch(
        torch.from_numpy(classes_of(found).mistakes.positions)
    )
    assert found.evaluated_on == "validation"
    assert len(classes_of(found).labels) == 300
    assert len(classes_of(found).mistakes.labels) == 5
    assert np.array_equal(classes_of(found).mistakes.labels, labels.numpy())
    assert np.array_equal(
        pictures_of(classes_of(found).mistakes) / np.float32(255), images.numpy()[:, 0]
    )
    assert (classes_of(found).labels == classes_of(found).predictions).mean() == (
        training.history[-1].metrics["validation/accuracy"]
    )


def test_nothing_is_drawn_and_nothing_learned() -> None:
    training = digits(Pooled)

    def state() -> tuple[Any, ...]:
        weights = [value.tolist() for value in training.network.state_dict().values()]
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state(legacy=True)[1].tolist(),  # type: ignore[index]
            random.getstate(),
            weights,
        )

    before = state()
    first, second = inspect(training, LONG_NAMES), inspect(training, LONG_NAMES)
    assert state() == before
    assert np.array_equal(classes_of(first).confidence, classes_of(second).confidence)
    assert all(parameter.grad_fn is None for parameter in training.network.parameters())


def test_a_linear_first_layer_is_its_units_of_the_largest_norm(
    training: Training, inspection: Inspection
) -> None:
    layer = inspection.first_layer
    assert layer is not None
    weights = next(training.network.parameters()).detach().numpy()
    assert (layer.kind, layer.size, layer.units_are_classes) == ("linear", 256, False)
    assert layer.weights.shape == (64, 28, 28)
    assert layer.weights.dtype == np.float32
    assert np.array_equal(layer.weights.reshape(64, -1), weights[layer.units])
    norms = np.linalg.norm(weights, axis=1)
    assert (np.diff(norms[layer.units]) <= 1e-6).all()
    assert norms[layer.units].min() >= np.delete(norms, layer.units).max() - 1e-6


def test_a_convolution_of_one_channel_is_its_kernels() -> None:
    training = digits(LeNet)
    layer = inspect(training, LONG_NAMES).first_layer
    assert layer is not None
    assert (layer.kind, layer.size, layer.weights.shape) == ("convolution", 6, (6, 5, 5))
    kernels = next(training.network.parameters()).detach().numpy()
    assert np.array_equal(layer.weights, kernels[layer.units, 0])


def test_the_units_of_a_lone_linear_layer_are_classes() -> None:
    layer = inspect(digits(SoftmaxRegression), LONG_NAMES).first_layer
    assert layer is not None
    assert layer.units_are_classes
    figure = run_figures.first_layer(layer, LONG_NAMES, ["run", "data"])
    assert [text.get_text() for text in figure.axes[0].texts] == list(LONG_NAMES)
    assert_all_fits(figure)


def test_another_first_layer_is_none_and_not_drawn() -> None:
    training = digits(Pooled)
    found = inspect(training, LONG_NAMES)
    assert found.first_layer is None
    drawn = run_figures.draw_run("run", "digits", history_of(training), found)
    assert "first_layer" not in drawn
    written = run_figures.tables(history_of(training), found)
    assert "figures/first_layer.json" not in written


def test_outputs_without_a_class_name_are_called_by_number() -> None:
    found = inspect(digits(Wordy, num_epochs=1, lr=1e-6), LONG_NAMES)
    assert (classes_of(found).predictions >= 10).all()
    text = run_figures.tables(HISTORY, found)["figures/confusion_matrix.csv"]
    last = "10" if classes_of(found).predictions.max() == 10 else "11"
    assert list(rows_of(text)[0])[-1] == last
    for figure in run_figures.draw_run("run", "digits", HISTORY, found).values():
        assert_all_fits(figure)


@pytest.mark.parametrize("names", [LONG_NAMES, CLASS_NAMES["digits"]], ids=["long", "short"])
def test_every_figure_becomes_a_png_that_holds_all_its_words(
    training: Training, inspection: Inspection, names: tuple[str, ...]
) -> None:
    predicted = dataclasses.replace(classes_of(inspection), names=names)
    drawn = run_figures.draw_run(
        "baseline lr=0.05",
        "fashion-mnist",
        history_of(training),
        dataclasses.replace(inspection, predicted=predicted),
    )
    assert list(drawn) == [
        "learning_curves",
        "confusion_matrix",
        "class_accuracy",
        "confident_mistakes",
        "first_layer",
    ]
    for figure in drawn.values():
        words = words_of(figure)
        assert "baseline lr=0.05" in words
        told = "trained on fashion-mnist, 1 seed", "fashion-mnist, n = 360 test examples, 1 seed"
        assert len(words & {*told}) == 1
        assert_all_fits(figure)
        width, height = size_of(style.png(figure))
        assert width == style.NARROW * style.DPI
        assert 300 < height < 1200


def test_learning_curves_show_and_tell_the_history(training: Training) -> None:
    history = history_of(training)
    figure = run_figures.learning_curves(history, ["run", "data"])
    loss, accuracy = figure.axes
    for axes, kind in ((loss, "loss"), (accuracy, "accuracy")):
        assert [line.get_label() for line in axes.lines] == ["train", "test"]
        for line in axes.lines:
            values = [metrics[f"{line.get_label()}/{kind}"] for _, metrics in history]
            assert np.asarray(line.get_xdata()).tolist() == [1, 2]
            assert np.asarray(line.get_ydata()).tolist() == values
    for row, (epoch, metrics) in zip(
        rows_of(run_figures.learning_curves_table(history)), history, strict=True
    ):
        assert int(row.pop("epoch")) == epoch
        assert set(row) == {
            f"{name}/{kind}" for name in ("train", "test") for kind in ("loss", "accuracy")
        }
        assert all(float(value) == metrics[key] for key, value in row.items())


def test_a_set_that_was_looked_at_once_is_a_point() -> None:
    history = [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5, "validation/loss": 0.7})]
    figure = run_figures.learning_curves(history, ["run", "data"])
    train, validation = figure.axes[0].lines
    assert np.asarray(train.get_xdata()).tolist() == [1, 2]
    assert np.asarray(validation.get_xdata()).tolist() == [2]
    assert validation.get_marker() == "o"
    rows = rows_of(run_figures.learning_curves_table(history))
    assert [row["validation/loss"] for row in rows] == ["", "0.7"]
    assert size_of(style.png(figure))


@pytest.mark.parametrize(
    "history",
    [
        *([(1, {"train/loss": 1.5 * loss}), (2, {"train/loss": loss})] for loss in LOSSES),
        [],
        HISTORY[:1],
        [(1, {"train/loss": math.nan, "train/accuracy": 0.1, "test/loss": math.inf})],
        [(epoch, HISTORY[0][1]) for epoch in range(1, 1001)],
    ],
    ids=[*map(str, LOSSES), "none", "one epoch", "diverged", "long"],
)
def test_learning_curves_of_any_history_fit(history: run_figures.History) -> None:
    figure = run_figures.learning_curves(history, ["run", "data"])
    assert_all_fits(figure)
    assert size_of(style.png(figure))
    assert len(rows_of(run_figures.learning_curves_table(history))) == len(history)


def test_the_only_epoch_is_the_only_tick() -> None:
    figure = run_figures.learning_curves(HISTORY[:1], ["run", "data"])
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_confusion_matrix_shows_and_tells_the_counts(inspection: Inspection) -> None:
    counts = run_figures.confusion(classes_of(inspection), 10)
    assert (
        counts[3, 5]
        == ((classes_of(inspection).labels == 3) & (classes_of(inspection).predictions == 5)).sum()
    )
    figure = run_figures.confusion_matrix(counts, LONG_NAMES, ["run", "data"])
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {
        (column, row): str(counts[row, column]) for row in range(10) for column in range(10)
    }
    rows = rows_of(run_figures.confusion_matrix_table(counts, LONG_NAMES))
    assert [row["true"] for row in rows] == list(LONG_NAMES)
    assert [[int(row[name]) for name in LONG_NAMES] for row in rows] == counts.tolist()


def test_large_counts_fit_into_their_cells() -> None:
    figure = run_figures.confusion_matrix(np.full((10, 10), 60_000), LONG_NAMES, ["run", "data"])
    assert_all_fits(figure)


def test_class_accuracy_shows_and_tells_each_class(inspection: Inspection) -> None:
    counts = run_figures.confusion(classes_of(inspection), 10)
    rows = rows_of(run_figures.class_accuracy_table(classes_of(inspection), LONG_NAMES))
    for label, row in enumerate(rows):
        n, hits = int(counts[label].sum()), int(counts[label, label])
        assert (row["class"], int(row["examples"]), int(row["correct"])) == (
            LONG_NAMES[label],
            n,
            hits,
        )
        assert float(row["accuracy"]) == hits / n
        assert (float(row["low"]), float(row["high"])) == wilson_interval(hits, n)
    words = words_of(
        run_figures.class_accuracy(classes_of(inspection), LONG_NAMES, ["run", "data"])
    )
    assert f"{float(rows[4]['accuracy']):.1%} of {rows[4]['examples']}" in words


def test_mistakes_show_and_tell_their_names(inspection: Inspection) -> None:
    mistakes = classes_of(inspection).mistakes
    figure = run_figures.confident_mistakes(mistakes, LONG_NAMES, ["run", "data"])
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[1::3] == [LONG_NAMES[label] for label in mistakes.predictions]
    assert words[2::3] == [LONG_NAMES[label] for label in mistakes.labels]
    (image,) = figure.axes[0].images
    mosaic = np.asarray(image.get_array())
    # White paper around images in their own grey values.
    images = pictures_of(mistakes).astype(np.int64)
    assert (255 - mosaic).sum() == (255 - images).sum()
    assert image.get_cmap().name == "gray"
    rows = rows_of(run_figures.confident_mistakes_table(mistakes, LONG_NAMES))
    assert [int(row["position"]) for row in rows] == mistakes.positions.tolist()
    assert [row["true"] for row in rows] == [LONG_NAMES[label] for label in mistakes.labels]
    assert [row["predicted"] for row in rows] == words[1::3]
    assert [np.float32(row["confidence"]) for row in rows] == mistakes.confidence.tolist()


@pytest.mark.parametrize("k", [1, 5, 6, 7, 24])
def test_names_as_long_as_they_come_fit_however_many_mistakes(k: int) -> None:
    found = made([0] * k, [9] * k)
    names = ["T-shirt/top"] * 5 + ["Ankle boots, or shoes"] * 5
    assert_all_fits(
        run_figures.confident_mistakes(classes_of(found).mistakes, names, ["run", "data"])
    )


def test_all_but_certain_is_not_called_certain() -> None:
    found = classes_of(made([0, 1, 2], [1, 2, 3])).mistakes
    sure = np.array([1.0, 0.9993, math.nan], np.float32)
    figure = run_figures.confident_mistakes(
        dataclasses.replace(found, confidence=sure), LONG_NAMES, ["run", "data"]
    )
    assert {">99.9%", "99.9%", "nan%"} <= words_of(figure)


def test_weights_show_and_tell_the_first_layer(inspection: Inspection) -> None:
    layer = inspection.first_layer
    assert layer is not None
    figure = run_figures.first_layer(layer, LONG_NAMES, ["run", "data"])
    (image,) = figure.axes[0].images
    assert image.norm.vmin == -image.norm.vmax  # type: ignore[operator]
    shown = np.ma.masked_invalid(image.get_array()).compressed()  # type: ignore[arg-type]
    assert np.array_equal(np.sort(shown), np.sort(layer.weights, axis=None))
    assert "First layer: 64 of 256 units" in words_of(figure)
    told = json.loads(run_figures.first_layer_table(layer))
    assert (told["kind"], told["size"]) == ("linear", 256)
    assert [unit["unit"] for unit in told["units"]] == layer.units.tolist()
    weights = np.array([unit["weights"] for unit in told["units"]], np.float32)
    assert np.array_equal(weights, layer.weights)


@pytest.mark.parametrize("m", [1, 2, 3, 6, 10, 20, 21, 33, 64])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.003, 1234.5])
def test_any_number_of_weights_of_any_size_fits(m: int, scale: float) -> None:
    weights = np.random.default_rng(0).normal(0, 1, (m, 7, 5)) * scale
    figure = run_figures.first_layer(layer_of(weights), LONG_NAMES, ["run", "data"])
    assert_all_fits(figure)


def test_weights_that_are_not_finite_are_drawn_and_told() -> None:
    weights = np.full((2, 28, 28), np.nan, np.float32)
    weights[1, 0] = [-np.inf, 0.5, *range(26)]
    assert size_of(
        style.png(run_figures.first_layer(layer_of(weights), LONG_NAMES, ["run", "data"]))
    )
    told = json.loads(run_figures.first_layer_table(layer_of(weights)))
    again = np.array([unit["weights"] for unit in told["units"]], np.float32)
    assert np.array_equal(again, np.where(np.isinf(weights), np.nan, weights), equal_nan=True)


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([3], [3]), ([3], [5]), (list(range(10)) * 9, list(range(10)) * 9)],
    ids=["one right", "one wrong", "all right"],
)
def test_few_images_and_perfect_predictions_are_drawn(
    labels: list[int], predictions: list[int]
) -> None:
    found = made(labels, predictions)
    for figure in run_figures.draw_run("run", "digits", HISTORY, found).values():
        assert_all_fits(figure)
        assert size_of(style.png(figure))
    written = run_figures.tables(HISTORY, found)
    mistakes = rows_of(written["figures/confident_mistakes.csv"])
    assert len(mistakes) == len(classes_of(found).mistakes.labels)
    known = [row for row in rows_of(written["figures/class_accuracy.csv"]) if int(row["examples"])]
    assert len(known) == len(set(labels))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 48), (64, 20), (120, 120)])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_mistakes_of_any_size_are_shown_in_their_colours(
    shape: tuple[int, int], colours: tuple[int, ...]
) -> None:
    k = 7
    images = np.random.default_rng(0).integers(0, 256, (k, *shape, *colours), np.uint8)
    some = np.arange(k)
    mistakes = Mistakes(images, some, some + 1, np.full(k, 0.5, np.float32), some)
    figure = run_figures.confident_mistakes(mistakes, LONG_NAMES, ["run", "data"])
    assert_all_fits(figure)
    mosaic = np.asarray(figure.axes[0].images[0].get_array())
    assert mosaic.shape[2:] == colours
    times = max(1, 28 // max(shape))
    first = images[0].repeat(times, 0).repeat(times, 1)
    height, width = first.shape[:2]
    assert any(
        np.array_equal(mosaic[top : top + height, left : left + width], first)
        for top in range(mosaic.shape[0] - height + 1)
        for left in range(mosaic.shape[1] // 6)
    )


def test_weights_for_colours_are_shown_in_colours() -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (6, 3, 3, 3)).astype(np.float32)
    weights[0] = 0
    layer = FirstLayer("convolution", weights, np.arange(6), 6, units_are_classes=False)
    figure = run_figures.first_layer(layer, [], ["run", "data"])
    assert_all_fits(figure)
    (axes,) = figure.axes
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape[2] == 3
    assert ((shown >= 0) & (shown <= 1)).all()
    assert (shown == 0.5).all(axis=2).sum() == (28 // 3 * 3) ** 2, "no weight, no colour"
    told = json.loads(run_figures.first_layer_table(layer))
    again = np.array([unit["weights"] for unit in told["units"]], np.float32)
    assert np.array_equal(again, weights)


@pytest.mark.parametrize("classes", [2, 61, 150, 1000])
def test_any_number_of_classes_is_drawn(classes: int) -> None:
    names = tuple(f"species number {i}" for i in range(classes))
    generator = np.random.default_rng(0)
    labels = np.arange(3 * classes) % classes
    best = np.where(generator.random(len(labels)) < 0.8, labels, labels[::-1])
    none = np.zeros(0, np.int64)
    mistakes = Mistakes(None, none, none, none.astype(np.float32), none)
    sure = np.ones(len(labels), np.float32)
    found = Inspection(
        "test", len(labels), PredictedClasses(names, labels, best, sure, mistakes), None
    )
    drawn = run_figures.draw_run("run", "species", HISTORY, found)
    assert "confident_mistakes" not in drawn
    for figure in drawn.values():
        assert_all_fits(figure)
        _, height = size_of(style.png(figure))
        assert height < 4000
    rows = rows_of(run_figures.tables(HISTORY, found)["figures/class_accuracy.csv"])
    assert [row["class"] for row in rows] == list(names)
    words = words_of(drawn["class_accuracy"])
    assert (f"the lowest 60 of {classes:,} classes" in words) == (classes > 60)


@pytest.mark.parametrize("outputs", [1, 2, 3, 9])
def test_predicted_numbers_show_and_tell_each_output(outputs: int) -> None:
    true, told = np.random.default_rng(0).normal(0, 1e3, (2, 40, outputs)).astype(np.float32)
    told[3, 0] = np.nan
    found = Inspection("validation", 40, PredictedNumbers(true, told), None)
    drawn = run_figures.draw_run("run", "numbers", HISTORY, found)
    assert list(drawn) == ["learning_curves", "predicted_numbers"]
    figure = drawn["predicted_numbers"]
    assert_all_fits(figure)
    assert len(figure.axes) == min(outputs, 6)
    points, _ = figure.axes[0].lines
    assert np.array_equal(np.asarray(points.get_xdata()), np.delete(true[:, 0], 3))
    assert np.array_equal(np.asarray(points.get_ydata()), np.delete(told[:, 0], 3))
    rows = rows_of(run_figures.tables(HISTORY, found)["figures/predicted_numbers.csv"])
    name = "true" if outputs == 1 else f"true_{outputs}"
    assert [np.float32(row[name]) for row in rows] == true[:, -1].tolist()


def test_the_units_of_a_regression_on_images_have_numbers_for_names() -> None:
    numbers = np.zeros((5, 2), np.float32)
    weights = np.ones((2, 4, 4), np.float32)
    layer = FirstLayer("linear", weights, np.arange(2), 2, units_are_classes=True)
    found = Inspection("test", 5, PredictedNumbers(numbers, numbers), layer)
    drawn = run_figures.draw_run("run", "numbers", HISTORY, found)
    assert {"unit 0", "unit 1"} <= set(words_of(drawn["first_layer"]))


def test_outputs_that_are_neither_classes_nor_numbers_have_curves_alone() -> None:
    found = Inspection("test", 3, None, None)
    assert list(run_figures.draw_run("run", "own", HISTORY, found)) == ["learning_curves"]


def test_a_runs_name_is_shown_as_it_is_and_cut_where_the_page_ends() -> None:
    found = made([1, 2], [1, 1])
    long = "baseline " + "W" * 400
    for figure in run_figures.draw_run(long, "digits", HISTORY, found).values():
        (cut,) = (word for word in words_of(figure) if word.startswith("baseline"))
        assert long.startswith(cut.removesuffix("…"))
    for figure in run_figures.draw_run("$\\oops$ cost=1$", "digits", HISTORY, found).values():
        assert "$\\oops$ cost=1$" in words_of(figure)
        assert size_of(style.png(figure))


@pytest.mark.processes
def test_the_drawing_process_needs_no_torch(tmp_path: Path, inspection: Inspection) -> None:
    parcel = tmp_path / "inspection.pickle"
    parcel.write_bytes(pickle.dumps(inspection))
    assert parcel.stat().st_size < 300_000
    code = f"""if True:
        import pathlib, pickle, sys
        from harness.figures import run_figures, style
        assert "matplotlib" not in sys.modules
        found = pickle.loads(pathlib.Path({str(parcel)!r}).read_bytes())
        history = [(1, {{"train/loss": 1.0}})]
        drawn = run_figures.draw_run("run", "digits", history, found)
        assert all(map(style.png, drawn.values()))
        run_figures.tables(history, found)
        unwanted = {{"torch", "mlflow", "pandas", "matplotlib.pyplot", "harness.training"}}
        assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_averaged_weights_have_their_own_curve() -> None:
    history = history_of(digits(Baseline, num_epochs=3, average_weights="last-epoch"))
    figure = run_figures.learning_curves(history, ["run", "data"])
    loss, accuracy = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        curves = {str(line.get_label()): [*np.asarray(line.get_ydata())] for line in axes.lines}
        assert list(curves) == ["train", "test", "averaged"]
        assert curves["averaged"] == [m[f"test/average_{quantity}"] for _, m in history]
        assert curves["test"] == [m[f"test/{quantity}"] for _, m in history]
    (first, *_) = rows_of(run_figures.learning_curves_table(history))
    assert first["test/average_accuracy"] == str(history[0][1]["test/average_accuracy"])
    # A metric of the experiment's own may be called so.
    own = [
        (1, {f"{part}/{name}": 0.5 for part in ("train", "test") for name in ("f1", "average_f1")})
    ]
    titles = [axes.get_title() for axes in run_figures.learning_curves(own, ["run", "data"]).axes]
    assert titles == ["f1", "average_f1"]
