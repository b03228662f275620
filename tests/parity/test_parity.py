"""The harness trains to the very bits of a plain PyTorch script, interrupted or not."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset
from torchvision import datasets, transforms

from experiments.baseline import Baseline
from experiments.dropout_mlp import DropoutMlp
from experiments.lenet import LeNet
from experiments.softmax_regression import SoftmaxRegression
from harness import Experiment
from harness.base.errors import BadRequest
from harness.base.fields import Fraction, Positive
from harness.benchmark import reference
from harness.execution.preparation import DataSource, Prepared
from harness.training import checkpoint
from harness.training import experiment as experiment_module
from harness.training.averaging import AverageName
from harness.training.builtin_datasets import DatasetName, data_root, open_dataset
from harness.training.dataset import Dataset, Examples
from harness.training.device import Execution
from harness.training.loop import EpochResult, Training
from harness.training.rehearsal import rehearse

CPU = torch.device("cpu")
EXPERIMENTS: list[type[Experiment]] = [Baseline, SoftmaxRegression, DropoutMlp, LeNet]
DIGITS = open_dataset("digits", data_root())

Numbers = list[dict[str, float]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tests' processes share the cores; which bits come out depends on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pictures:
    """A set of images as torchvision's data sets give it: a picture at a time, transformed."""

    def __init__(self, images: Examples) -> None:
        self.images = images
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        pixels = self.images.inputs[position].view(28, 28).numpy()
        return self.transform(Image.fromarray(pixels)), int(self.images.labels[position])


def begin(prepared: Prepared) -> Training:
    return prepared.training(Execution(), CPU)


def prepared_on_digits(experiment: Experiment) -> Prepared:
    return DataSource(None).prepare(experiment)


def numbers(epochs: Iterable[EpochResult]) -> Numbers:
    """What may not differ: losses and accuracies, not seconds."""
    return [losses_and_accuracies(result.metrics) for result in epochs]


def losses_and_accuracies(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.endswith(("/loss", "/accuracy"))}


def same_bits(network: nn.Module, other: nn.Module) -> bool:
    weights, others = network.state_dict(), other.state_dict()
    return list(weights) == list(others) and all(
        torch.equal(torch.as_tensor(weights[name]), torch.as_tensor(others[name]))
        for name in weights
    )


def plainly(experiment: Experiment, train: Any, evaluation: Any) -> tuple[nn.Module, Numbers]:
    """The plain script's training of the same network on data sets of the usual kind."""
    network, epochs = reference.train(
        train,
        evaluation,
        reference.baseline if type(experiment) is Baseline else experiment.network,
        seed=experiment.seed,
        lr=experiment.lr,
        batch_size=experiment.batch_size,
        num_epochs=experiment.num_epochs,
        drop_last=experiment.drop_last,
        weigh_examples=experiment.loss_scale == "example",
    )
    return network, [losses_and_accuracies(metrics) for metrics in epochs]


# 1,437 and 360 images: 100 and 256 divide neither, 2,000 is more than all.
@pytest.mark.parametrize("batch_size", [100, 256, 2000])
@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_every_number_is_that_of_the_plain_script(
    kind: type[Experiment], seed: int, batch_size: int
) -> None:
    experiment = kind(dataset="digits", seed=seed, batch_size=batch_size, num_epochs=2)
    training = begin(prepared_on_digits(experiment))
    epochs = numbers(training.epochs())
    network, expected = plainly(experiment, Pictures(DIGITS.train), Pictures(DIGITS.test))
    assert epochs == expected
    assert same_bits(training.network, network)


@pytest.mark.parametrize(
    ("drop_last", "loss_scale"), [(True, "batch"), (False, "example"), (True, "example")]
)
@pytest.mark.parametrize("batch_size", [100, 479, 1437])
@pytest.mark.parametrize("kind", [Baseline, DropoutMlp])
def test_a_smaller_last_batch_is_left_out_or_weighed_as_by_the_plain_script(
    kind: type[Experiment],
    batch_size: int,
    drop_last: bool,
    loss_scale: Literal["batch", "example"],
) -> None:
    experiment = kind(dataset="digits", batch_size=batch_size, num_epochs=2)
    changed = dataclasses.replace(experiment, drop_last=drop_last, loss_scale=loss_scale)
    training, usual = (begin(prepared_on_digits(each)) for each in (changed, experiment))
    epochs, usual_epochs = numbers(training.epochs()), numbers(usual.epochs())
    network, expected = plainly(changed, Pictures(DIGITS.train), Pictures(DIGITS.test))
    assert epochs == expected
    assert same_bits(training.network, network)
    # 479 and 1437 divide the 1437 examples.
    assert (epochs == usual_epochs) == (batch_size != 100)
    assert training.examples_seen == 2 * (1400 if drop_last and batch_size == 100 else 1437)


def test_no_training_is_without_a_batch() -> None:
    with pytest.raises(BadRequest, match=r"drop_last: no batch is left: batch_size is 1,438, and"):
        prepared_on_digits(Baseline(dataset="digits", batch_size=1438, drop_last=True))


@pytest.mark.parametrize(
    ("variable", "name", "kind"),
    [
        ("HARNESS_TEST_FASHION_MNIST", "fashion-mnist", datasets.FashionMNIST),
        ("HARNESS_TEST_MNIST", "mnist", datasets.MNIST),
    ],
)
def test_real_images_give_the_plain_scripts_numbers(
    variable: str, name: DatasetName, kind: Any
) -> None:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no data root")
    root = Path(os.environ[variable])
    experiment = Baseline(dataset=name, num_epochs=1)
    training = begin(DataSource(root).prepare(experiment))
    epochs = numbers(training.epochs())
    train, test = (
        kind(root, train=part, transform=transforms.ToTensor()) for part in (True, False)
    )
    network, expected = plainly(experiment, train, test)
    assert epochs == expected
    assert same_bits(training.network, network)


def test_a_validation_run_is_a_plain_run_on_the_same_rows() -> None:
    experiment = DropoutMlp(dataset="digits", num_epochs=2, validation_size=200, split_seed=3)
    prepared = prepared_on_digits(experiment)
    kept, drawn = prepared.train.rows, prepared.evaluation.rows
    assert kept is not None
    assert drawn is not None
    assert sorted([*kept.tolist(), *drawn.tolist()]) == list(range(len(DIGITS.train)))
    training = begin(prepared)
    epochs = numbers(training.epochs())
    pictures: Any = Pictures(DIGITS.train)
    network, expected = plainly(
        experiment, Subset(pictures, kept.tolist()), Subset(pictures, drawn.tolist())
    )
    renamed = [
        {name.replace("test/", "validation/"): value for name, value in metrics.items()}
        for metrics in expected
    ]
    assert epochs == renamed
    assert same_bits(training.network, network)


class Centred(nn.Module):
    """Centres the images that it is given where they are, as a network may."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images.numpy()[:] -= 0.5
        return images


class Shifted(nn.CrossEntropyLoss):
    """Counts another class than the label's, written into the labels."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(logits, labels.add_(1).remainder_(10))


class InPlace(Baseline):
    def network(self) -> nn.Module:
        return nn.Sequential(Centred(), super().network())

    def loss(self) -> nn.Module:
        return Shifted()


@pytest.mark.parametrize("validation_size", [0, 100])
def test_an_experiment_may_write_into_its_batches(validation_size: int) -> None:
    """They are its own: the next pass has them anew."""
    experiment = InPlace(dataset="digits", num_epochs=2, validation_size=validation_size)
    training = begin(prepared_on_digits(experiment))
    *_, last = numbers(training.epochs())
    for name, value in training.evaluate().items():
        assert last[f"{training.evaluated_on}/{name}"] == value


def test_the_split_moves_with_its_own_seed_alone() -> None:
    experiment = Baseline(dataset="digits", validation_size=300)

    def drawn(**changes: int) -> list[int]:
        changed = dataclasses.replace(experiment, **changes)  # type: ignore[arg-type]
        rows = prepared_on_digits(changed).evaluation.rows
        assert rows is not None
        return rows.tolist()

    assert drawn(seed=7) == drawn()
    assert drawn(split_seed=1) != drawn()


def disturb_every_generator() -> None:
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_the_same_training_gives_the_same_bits_again(kind: type[Experiment]) -> None:
    prepared = prepared_on_digits(kind(dataset="digits", num_epochs=2))
    first = begin(prepared)
    list(first.epochs())
    disturb_every_generator()
    second = begin(prepared)
    list(second.epochs())
    assert numbers(second.history) == numbers(first.history)
    assert same_bits(second.network, first.network)


@pytest.mark.parametrize("validation_size", [0, 300])
def test_other_test_images_change_nothing_where_there_are_validation_images(
    validation_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Baseline(dataset="digits", num_epochs=2, validation_size=validation_size)

    def trained(dataset: Dataset) -> tuple[Prepared, Training]:
        monkeypatch.setattr(experiment_module, "open_dataset", lambda *_: dataset)
        prepared = prepared_on_digits(experiment)
        training = begin(prepared)
        list(training.epochs())
        return prepared, training

    noise = torch.randint(0, 256, DIGITS.test.inputs.shape, dtype=torch.uint8)
    noisy = dataclasses.replace(DIGITS.test, inputs=noise)
    other = dataclasses.replace(DIGITS, load_test=lambda: noisy)
    (prepared, training), (_, expected) = trained(other), trained(DIGITS)
    assert same_bits(training.network, expected.network)
    same = numbers(training.history) == numbers(expected.history)
    assert same == bool(validation_size)
    contexts = [record.context for record in prepared.data_records()]
    assert contexts == ["training", "validation" if validation_size else "test"]


class Momentum(DropoutMlp):
    """An optimizer with state, and a schedule."""

    momentum: Annotated[float, Fraction] = 0.9

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, nesterov=True)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, num_updates: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        return torch.optim.lr_scheduler.StepLR(optimizer, num_updates // self.num_epochs, gamma=0.5)


class Adaptive(LeNet):
    """Adam with a cosine schedule, and noise from every generator there is."""

    lr: Annotated[float, Positive] = 0.01

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, num_updates: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_updates)

    def update(
        self,
        network: nn.Module,
        loss_fn: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        brightness = 1 + 0.1 * (random.random() + float(np.random.rand()) - 1)
        noisy = images * brightness + 0.1 * torch.randn_like(images)
        return super().update(network, loss_fn, optimizer, noisy, labels)


class Augmented(DropoutMlp):
    """Draws for each batch before the network does."""

    def augment(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.roll(int(torch.randint(5, ())), 3) * random.choice([0.9, 1.1])


def resumptions(prepared: Callable[[], Prepared]) -> Iterator[tuple[int, Training, Training]]:
    """A training restored after each epoch, from none on, and the one that never stopped."""
    whole = begin(prepared())
    states = [checkpoint.encode(whole.state())]
    for _ in whole.epochs():
        states.append(checkpoint.encode(whole.state()))
    for epoch, state in enumerate(states):
        disturb_every_generator()
        rehearse(begin(prepared()), checkpoint.decode(state), whole.history[:epoch])
        resumed = begin(prepared())
        resumed.restore(checkpoint.decode(state), whole.history[:epoch])
        yield epoch, resumed, whole


class MovingScale(nn.Module):
    """Scales by what it has seen so far, which no `state_dict` holds by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()), persistent=False)
        self.seen = 0

    mean: torch.Tensor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
            self.mean += inputs.mean().detach() / self.seen
        return inputs / self.mean

    def get_extra_state(self) -> int:
        return self.seen

    def set_extra_state(self, state: int) -> None:
        self.seen = state


class Teacher(Baseline):
    """A second network follows the first one, and pulls it back."""

    @functools.cached_property
    def teacher(self) -> nn.Module:
        return super().network()

    def network(self) -> nn.Module:
        assert self.teacher
        return nn.Sequential(MovingScale(), super().network())

    def update(
        self,
        network: nn.Module,
        loss_fn: nn.Module,
        optimizer: torch.optim.Optimizer,
        inputs: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy = inputs + 0.01 * self.teacher(inputs).mean().detach()
        result = super().update(network, loss_fn, optimizer, noisy, labels)
        with torch.no_grad():
            weights = list(network.parameters())
            for slow, fast in zip(self.teacher.parameters(), weights, strict=True):
                slow.lerp_(fast, 0.1)
        return result


class Noisy(Baseline):
    """Draws in evaluation too, normalises, and its loss keeps state."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            MovingScale(),
            nn.Flatten(),
            nn.Linear(784, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            AlwaysDropout(),
            nn.Linear(16, 10),
        )

    def loss(self) -> nn.Module:
        return Remembering()


class AlwaysDropout(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(inputs, 0.1, training=True)


class Remembering(nn.CrossEntropyLoss):
    """Its smoothing depends on how often it was asked, evaluations included."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("asked", torch.zeros(()))

    asked: torch.Tensor

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return super().forward(logits, labels) * (1 + 0.001 * self.asked)


AVERAGES: list[AverageName] = ["last-epoch", "ema"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", [*EXPERIMENTS, Momentum, Adaptive, Augmented, Teacher, Noisy])
def test_averaging_the_weights_changes_no_bit_of_the_training(
    kind: type[Experiment], average: AverageName
) -> None:
    experiment = kind(dataset="digits", num_epochs=3, batch_size=200)
    plain = begin(prepared_on_digits(experiment))
    averaged = begin(prepared_on_digits(dataclasses.replace(experiment, average_weights=average)))
    for training in (plain, averaged):
        disturb_every_generator()
        list(training.epochs())
    names = losses_and_accuracies(plain.history[0].metrics)
    for one, other in zip(plain.history, averaged.history, strict=True):
        measured = losses_and_accuracies(other.metrics)
        assert {name: measured[name] for name in names} == losses_and_accuracies(one.metrics)
        assert other.metrics.keys() - one.metrics.keys() == {
            name.replace("test/", "test/average_") for name in one.metrics if "test/" in name
        }
    assert same_bits(averaged.network, plain.network)
    assert same_bits(averaged.loss_fn, plain.loss_fn)
    states = [checkpoint.encode(training.generators.state()) for training in (plain, averaged)]
    assert states[0] == states[1]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", [Baseline, Noisy])
def test_the_average_goes_on_from_any_epoch_too(
    kind: type[Experiment], average: AverageName
) -> None:
    def prepared() -> Prepared:
        return prepared_on_digits(
            kind(dataset="digits", num_epochs=3, batch_size=200, average_weights=average)
        )

    def of_average(training: Training) -> bytes:
        with training.averaged():
            return checkpoint.encode(training.network.state_dict())

    for _, resumed, whole in resumptions(prepared):
        list(resumed.epochs())
        for one, other in zip(resumed.history, whole.history, strict=True):
            for name in ("test/loss", "test/average_loss", "test/average_accuracy"):
                assert one.metrics[name] == other.metrics[name]
        assert of_average(resumed) == of_average(whole)


@pytest.mark.parametrize("kind", [*EXPERIMENTS, Momentum, Adaptive, Augmented, Teacher])
def test_a_training_goes_on_from_any_epoch_as_if_it_had_not_stopped(
    kind: type[Experiment],
) -> None:
    def prepared() -> Prepared:
        return prepared_on_digits(kind(dataset="digits", num_epochs=3, batch_size=100))

    for epoch, resumed, whole in resumptions(prepared):
        assert numbers(resumed.history) == numbers(whole.history[:epoch])
        list(resumed.epochs())
        assert numbers(resumed.history) == numbers(whole.history)
        assert same_bits(resumed.network, whole.network)
        assert resumed.examples_seen == whole.examples_seen == 3 * len(DIGITS.train)


def test_only_training_batches_are_augmented() -> None:
    class Dark(Baseline):
        def augment(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(inputs)

    # A learning rate so small that the weights stay what they were.
    dark, bright = (
        begin(prepared_on_digits(kind(dataset="digits", num_epochs=1, lr=1e-30)))
        for kind in (Dark, Baseline)
    )
    (dark_result,), (bright_result,) = list(dark.epochs()), list(bright.epochs())
    assert dark_result.metrics["train/loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert bright_result.metrics["train/loss"] != pytest.approx(math.log(10), abs=1e-6)
    assert dark_result.metrics["test/loss"] == bright_result.metrics["test/loss"]


def test_a_schedule_steps_after_each_update() -> None:
    training = begin(prepared_on_digits(Momentum(dataset="digits", lr=0.08, num_epochs=4)))
    rates = [training.optimizer.param_groups[0]["lr"] for _ in training.epochs()]
    assert rates == [0.04, 0.02, 0.01, 0.005]


def test_a_captured_graph_that_cannot_be_had_changes_no_bit() -> None:
    prepared = prepared_on_digits(DropoutMlp(dataset="digits", num_epochs=1))
    with pytest.warns(UserWarning, match="capture_graph needs CUDA"):
        asked = prepared.training(Execution(capture_graph=True), CPU)
    expected = begin(prepared)
    assert same_bits(asked.network, expected.network)
    # One process advances one training at a time: the generators are those of the process.
    disturb_every_generator()
    state = torch.get_rng_state()
    list(asked.epochs())
    torch.set_rng_state(state)
    list(expected.epochs())
    assert numbers(asked.history) == numbers(expected.history)
    assert same_bits(asked.network, expected.network)
