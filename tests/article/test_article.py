"""The article's statements, each checked on the code that trains.

The digits need no network, and narrow hidden layers keep every test short. Seeds are fixed: a
tolerance that is called statistical says how far an honest draw could be off, nothing is flaky.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from experiments.baseline import Baseline
from harness import Experiment
from harness.training.builtin_datasets import data_root, open_dataset
from harness.training.dataset import Dataset, Examples
from harness.training.device import Execution, choose
from harness.training.loop import Training
from harness.training.optimizer import VanillaSGD

CPU = torch.device("cpu")

SMALL = Baseline(dataset="digits", hidden_width=16, batch_size=32)
"""The baseline at a size that trains in milliseconds; everything else is the article's."""

DIGITS: Dataset = open_dataset("digits", data_root())


class Regularized(Experiment):
    """A network with both kinds of layers that evaluation mode switches."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(16, 10),
        )


class ScaledLoss(nn.Module):
    """A loss times a factor, whose gradients are therefore the factor times as large."""

    def __init__(self, loss: nn.Module, factor: float) -> None:
        super().__init__()
        self.loss, self.factor = loss, factor

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.factor * self.loss(logits, labels)
        return scaled


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def first_digits(n: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = DIGITS.train.batch(torch.arange(n))
    return images.to(dtype), labels


def numbered_images(n: int) -> Examples:
    """The first digits, the number of each written into its first pixel."""
    pixels = DIGITS.train.inputs[:n].clone()
    pixels[:, 0, 0, 0] = torch.arange(n)
    return Examples(pixels, DIGITS.train.labels[:n])


def training_of(experiment: Experiment, train: Examples, test: Examples) -> Training:
    return Training(experiment, train, test, "test", Execution(), CPU)


def update(
    experiment: Experiment,
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    loss_fn: nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update with the experiment's own optimizer and, unless another is given, its loss."""
    optimizer = experiment.optimizer(network.parameters())
    return experiment.update(network, loss_fn or experiment.loss(), optimizer, images, labels)


def backward(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    SMALL.loss()(network(images), labels).backward()


def gradients(network: nn.Module) -> list[torch.Tensor]:
    """The gradients that the parameters hold; every one of them must hold one."""
    held = [parameter.grad for parameter in network.parameters()]
    assert held
    assert all(isinstance(gradient, torch.Tensor) for gradient in held)
    return [gradient.clone() for gradient in held if gradient is not None]


def values(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def same_bits(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


# The script: its network, its defaults, its data.


def test_the_network_is_784_256_10() -> None:
    """The network flattens, then applies two linear layers with a ReLU between them."""
    network = Baseline().network()
    kinds = [type(module) for module in network.children()]
    assert kinds == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes == {
        "1.weight": (256, 784),
        "1.bias": (256,),
        "3.weight": (10, 256),
        "3.bias": (10,),
    }
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_network_computes_two_affine_maps_with_a_relu_between() -> None:
    """The logits are an affine map of the rectified affine map of the flattened image."""
    images, _ = first_digits(8, torch.float64)
    network = Baseline(hidden_width=16, init_std=0.1).network().double()
    first, second = linear_layers(network)
    nn.init.normal_(first.bias)
    nn.init.normal_(second.bias)
    hidden = images.view(8, 784) @ first.weight.T + first.bias
    expected = hidden * (hidden > 0) @ second.weight.T + second.bias
    torch.testing.assert_close(network(images), expected)


def test_the_defaults_are_the_scripts() -> None:
    """Learning rate 0.1, batches of 256, ten epochs, Fashion-MNIST."""
    defaults = Baseline()
    assert (defaults.lr, defaults.batch_size, defaults.num_epochs) == (0.1, 256, 10)
    assert defaults.dataset == "fashion-mnist"
    assert (defaults.hidden_width, defaults.init_std) == (256, 0.01)


def test_the_optimizer_is_vanilla_sgd_over_every_parameter() -> None:
    """Plain stochastic gradient descent at the learning rate, no parameter left out."""
    network = SMALL.network()
    optimizer = SMALL.optimizer(network.parameters())
    assert type(optimizer) is VanillaSGD
    (group,) = optimizer.param_groups
    assert list(map(id, group["params"])) == list(map(id, network.parameters()))
    extras = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
    assert group["lr"] == 0.1
    assert not any(group[extra] for extra in extras)


def test_images_are_those_of_to_tensor() -> None:
    """A training image is a float tensor (1, 28, 28) with grey values from 0 to 1."""
    to_tensor = importlib.import_module("torchvision.transforms").ToTensor()
    images, _ = first_digits(4)
    assert images.shape == (4, 1, 28, 28)
    pixels = DIGITS.train.inputs[:4].view(4, 28, 28)
    expected = [to_tensor(image.numpy()) for image in pixels]
    assert torch.equal(images, torch.stack(expected))
    assert images.min() == 0
    assert images.max() == 1


def test_flatten_turns_an_image_into_a_vector_of_784() -> None:
    """An image enters as (1, 28, 28) and reaches the first linear layer as 784 numbers."""
    images, _ = first_digits(5)
    flatten, first, *_ = SMALL.network().children()
    flat = flatten(images)
    assert flat.shape == (5, 784)
    assert torch.equal(flat, images.reshape(5, 784))
    assert first(flat).shape == (5, 16)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        first(images)


def test_the_training_images_are_shuffled_and_the_test_images_are_not() -> None:
    """Each epoch takes every training image once, reordered; testing keeps the order."""
    seen: dict[bool, list[list[int]]] = {True: [], False: []}

    def record(network: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen[network.training].append((inputs[0][:, 0, 0, 0] * 255).round().int().tolist())

    images = numbered_images(40)
    training = training_of(Baseline(batch_size=16, hidden_width=4, num_epochs=2), images, images)
    training.network.register_forward_pre_hook(record)
    assert len(list(training.epochs())) == 2

    in_order = list(range(40))
    for batches in seen.values():
        assert [len(batch) for batch in batches] == [16, 16, 8] * 2
    trained = list(itertools.chain(*seen[True]))
    assert sorted(trained[:40]) == sorted(trained[40:]) == in_order
    assert in_order != trained[:40] != trained[40:]
    assert list(itertools.chain(*seen[False])) == in_order * 2


# Logits.


def test_the_outputs_are_logits_and_not_probabilities() -> None:
    """The last layer applies no softmax: outputs take any sign and do not sum to one."""
    images, _ = first_digits(64)
    network = SMALL.network()
    logits = network(images)
    assert logits.shape == (64, 10)
    assert bool((logits < 0).any())
    assert not torch.isclose(logits.sum(dim=1), torch.ones(64), atol=0.1).any()
    assert not torch.isclose(logits.exp().sum(dim=1), torch.ones(64), atol=0.1).any()
    softmaxes = (nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin)
    assert not any(isinstance(module, softmaxes) for module in network.modules())
    assert isinstance(list(network.children())[-1], nn.Linear)


# Initial weights.


@pytest.mark.parametrize("init_std", [0.01, 0.1])
def test_the_initial_weights_are_gaussian_with_the_stated_deviation(init_std: float) -> None:
    """The weights are draws from a normal distribution of mean zero and small deviation."""
    network = Baseline(init_std=init_std).network()
    for layer in linear_layers(network):
        weight = layer.weight.detach().double()
        n = weight.numel()
        # Five standard errors of each statistic of n normal draws: s/sqrt(n) for the mean,
        # s/sqrt(2(n-1)) for the deviation, sqrt(24/n) for the excess kurtosis, which tells a
        # normal distribution (0) from a uniform one (-1.2).
        assert abs(weight.mean().item()) < 5 * init_std / math.sqrt(n)
        assert abs(weight.std().item() - init_std) < 5 * init_std / math.sqrt(2 * (n - 1))
        kurtosis = (weight / init_std).pow(4).mean().item() - 3
        assert abs(kurtosis) < 5 * math.sqrt(24 / n)


def test_the_initial_biases_are_zero() -> None:
    """Every bias starts at exactly zero."""
    layers = linear_layers(SMALL.network())
    assert len(layers) == 2
    for layer in layers:
        assert not layer.bias.any()


def test_apply_reaches_every_nested_module() -> None:
    """Applying the initializer to a tree of modules visits each submodule, however deep."""
    network = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(784, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8))),
        nn.Linear(8, 10),
    )
    visited: list[int] = []
    network.apply(lambda module: visited.append(id(module)))
    assert sorted(visited) == sorted(map(id, network.modules()))

    # With a deviation of zero, a layer that was reached is zero and any other is not.
    assert all(layer.weight.any() for layer in linear_layers(network))
    network.apply(Baseline(init_std=0).init_weights)
    assert len(linear_layers(network)) == 3
    assert not any(parameter.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 2, 3), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Embedding(3, 4), nn.PReLU()],
    ids=lambda layer: type(layer).__name__,
)
def test_the_initializer_acts_on_linear_layers_only(layer: nn.Module) -> None:
    """Layers of other kinds keep the weights that they were made with."""
    before = values(layer)
    assert any(parameter.any() for parameter in before)
    linear = nn.Linear(2, 2)
    nn.Sequential(layer, linear).apply(Baseline(init_std=0).init_weights)
    assert same_bits(before, values(layer))
    assert not linear.weight.any()


def test_small_initial_weights_start_with_moderate_activations_and_gradients() -> None:
    """The initializer is meant to start where neither activations nor gradients are extreme."""
    images, labels = first_digits(256)

    def start(init_std: float) -> tuple[float, float, float]:
        network = Baseline(init_std=init_std).network()
        logits, loss = update(SMALL, network, images, labels)
        largest = max(gradient.abs().max().item() for gradient in gradients(network))
        return logits.abs().max().item(), loss.item(), largest

    activation, loss, gradient = start(0.01)
    # Logits near zero mean equal probabilities, hence the loss of a guess among ten classes.
    assert activation < 0.5
    assert loss == pytest.approx(math.log(10), abs=0.05)
    assert gradient < 0.5
    extreme_activation, extreme_loss, extreme_gradient = start(1.0)
    assert extreme_activation > 100
    assert extreme_loss > 10 * loss
    assert extreme_gradient > 10 * gradient


# Devices.


MIXED_DEVICES = "(?i)device|on (cpu|gpu|mps)"
"""What the backends' errors have in common."""


def other_device() -> torch.device:
    """An accelerator, or the device that knows shapes without values where there is none."""
    device = choose("auto")
    return torch.device("meta") if device.type == "cpu" else device


def test_data_and_model_on_different_devices_fail() -> None:
    """Neither a matrix product nor a loss mixes tensors of two devices."""
    images, labels = first_digits(4)
    here, there = SMALL.network(), SMALL.network().to(other_device())
    far_images, far_labels = images.to(other_device()), labels.to(other_device())
    loss = SMALL.loss()
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        there(images)
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        here(far_images)
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        loss(here(images), far_labels)
    with pytest.raises(RuntimeError, match=MIXED_DEVICES):
        update(SMALL, there, images, labels)
    for network, x, y in ((here, images, labels), (there, far_images, far_labels)):
        assert loss(network(x), y).device.type == x.device.type


def test_every_parameter_and_every_batch_is_moved_to_the_chosen_device() -> None:
    """The script moves the whole model to the device once, and each batch with its labels."""
    device = other_device()
    images = numbered_images(4)
    training = Training(SMALL, images, images, "test", Execution(), device)
    tensors = [*training.network.parameters(), *training.network.buffers()]
    assert len(tensors) == 4
    positions = torch.arange(4, device=device)
    tensors += training.train_examples.batch(positions)
    tensors += next(training.evaluation_examples.batches(4))
    assert {tensor.device.type for tensor in tensors} == {device.type}


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (True, True, "cuda"),
        (True, False, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ],
)
def test_the_device_is_cuda_else_mps_else_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    """The script takes the first device that the machine has, in this order."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose("auto") == torch.device(expected)


# Cross-entropy.


def test_cross_entropy_is_log_softmax_then_negative_log_likelihood() -> None:
    """The loss joins the two steps in one; for one image it is log-sum-exp less a logit."""
    images, labels = first_digits(64, torch.float64)
    logits = Baseline(hidden_width=16, init_std=0.3).network().double()(images)
    loss = SMALL.loss()
    composed = functional.nll_loss(functional.log_softmax(logits, dim=1), labels)
    torch.testing.assert_close(loss(logits, labels), composed)
    for row, label in zip(logits, labels, strict=True):
        by_hand = row.exp().sum().log() - row[label]
        torch.testing.assert_close(loss(row[None], label[None]), by_hand)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_loss_is_the_mean_over_the_batch(n: int) -> None:
    """By default the loss of a batch is the average of its images' losses."""
    images, labels = first_digits(n)
    logits = Baseline(hidden_width=16, init_std=0.3).network()(images)
    loss = SMALL.loss()
    singles = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(n)]
    torch.testing.assert_close(loss(logits, labels), torch.stack(singles).mean())


def test_the_loss_stays_finite_for_extreme_logits() -> None:
    """Inside the loss log-softmax is computed stably, which softmax and then log are not."""
    logits = torch.zeros(2, 10)
    logits[0, 3], logits[1, 3] = 1e4, -1e4
    logits.requires_grad_()
    labels = torch.tensor([0, 3])
    loss = SMALL.loss()(logits, labels)
    # A right class that is 10,000 behind costs 10,000; ln 9 is what the nine others add.
    assert loss.item() == pytest.approx((1e4 + 1e4 + math.log(9)) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()

    naive = functional.nll_loss(torch.softmax(logits, dim=1).log(), labels)
    assert naive.isinf()
    (naive_gradient,) = torch.autograd.grad(naive, logits)
    assert not naive_gradient.isfinite().all()


def test_softmax_before_the_loss_is_wrong() -> None:
    """Probabilities in place of logits give another loss, one that no prediction can leave."""
    loss = SMALL.loss()

    def twice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = loss(torch.softmax(logits, dim=1), labels)
        return value

    # Probabilities differ by at most 1, so this loss lies between ln(1 + 9/e), all on the right
    # class, and ln(e + 9), all on a wrong one.
    lowest, highest = math.log(1 + 9 / math.e), math.log(math.e + 9)
    images, labels = first_digits(64)
    for init_std in (0.1, 0.3, 3.0):
        logits = Baseline(hidden_width=16, init_std=init_std).network()(images)
        assert lowest - 1e-6 <= twice(logits, labels).item() <= highest + 1e-6
        assert abs(twice(logits, labels).item() - loss(logits, labels).item()) > 1e-3

    certain = torch.eye(10) * 100
    right, wrong = torch.arange(10), torch.arange(10).roll(1)
    assert loss(certain, right).item() == pytest.approx(0, abs=1e-6)
    assert twice(certain, right).item() == pytest.approx(lowest)
    assert loss(certain, wrong).item() == pytest.approx(100)
    assert twice(certain, wrong).item() == pytest.approx(highest)

    # And a certain mistake no longer teaches: its gradient is gone.
    certain.requires_grad_()
    (kept,) = torch.autograd.grad(loss(certain, wrong), certain)
    (lost,) = torch.autograd.grad(twice(certain, wrong), certain)
    assert kept.abs().max() > 0.09
    assert lost.abs().max() < 1e-6


# The five steps.


def test_an_update_has_five_steps_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward pass, loss, gradient reset, backpropagation, optimizer step: each once."""
    steps: list[str] = []
    network, loss_fn = SMALL.network(), SMALL.loss()
    optimizer = SMALL.optimizer(network.parameters())
    reset = optimizer.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        steps.append("reset")
        reset(set_to_none)

    monkeypatch.setattr(optimizer, "zero_grad", zero_grad)
    network.register_forward_hook(lambda *_: steps.append("forward"))
    loss_fn.register_forward_hook(lambda *_: steps.append("loss"))
    last = linear_layers(network)[-1]
    last.register_full_backward_hook(lambda *_: steps.append("backward"))
    optimizer.register_step_pre_hook(lambda *_: steps.append("step"))
    SMALL.update(network, loss_fn, optimizer, *first_digits(8))
    assert steps == ["forward", "loss", "reset", "backward", "step"]


def test_the_forward_pass_uses_the_current_parameters() -> None:
    """The logits and the loss of an update come from the weights before its step."""
    images, labels = first_digits(32)
    network = SMALL.network()
    for _ in range(3):
        expected = network(images).detach()
        logits, loss = update(SMALL, network, images, labels)
        assert torch.equal(logits, expected)
        assert torch.equal(loss, SMALL.loss()(expected, labels))
        assert not torch.equal(network(images), expected)


def test_the_forward_pass_records_what_differentiation_needs() -> None:
    """While it computes, the network records the way from every parameter to the logits."""
    images, _ = first_digits(4)
    network = SMALL.network()
    pending, reached = [network(images).grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None:
            reached.add(id(getattr(node, "variable", None)))
            pending += [following for following, _ in node.next_functions]
    assert reached >= {id(parameter) for parameter in network.parameters()}


def test_the_loss_is_one_scalar_and_the_root_of_backpropagation() -> None:
    """The batch becomes a single number, and that is what can be differentiated."""
    images, labels = first_digits(8)
    network = SMALL.network()
    _, loss = update(SMALL, network, images, labels)
    assert loss.shape == ()
    assert loss.grad_fn is not None
    with pytest.raises(RuntimeError, match="scalar"):
        network(images).backward()


def test_gradients_accumulate_without_a_reset() -> None:
    """A second backward pass adds to the gradients of the first."""
    images, labels = first_digits(8)
    network = SMALL.network()
    backward(network, images, labels)
    once = gradients(network)
    assert any(gradient.any() for gradient in once)
    backward(network, images, labels)
    # Exactly: doubling is exact in floating point.
    assert same_bits(gradients(network), [2 * gradient for gradient in once])


def test_an_update_resets_the_gradients_first() -> None:
    """What earlier batches left in the gradients has no part in an update."""
    images, labels = first_digits(8)
    clean = SMALL.network()
    littered, trained = copy.deepcopy(clean), copy.deepcopy(clean)
    for parameter in littered.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    backward(trained, *DIGITS.train.batch(torch.arange(8, 40)))
    for network in (clean, littered, trained):
        update(SMALL, network, images, labels)
    for network in (littered, trained):
        assert same_bits(values(network), values(clean))
        assert same_bits(gradients(network), gradients(clean))


def test_autograd_gradients_equal_finite_differences() -> None:
    """Backpropagation applies the chain rule: it gives the derivative, not an estimate."""
    images, labels = first_digits(3, torch.float64)
    network = Baseline(hidden_width=3, init_std=0.1).network().double()
    names = [name for name, _ in network.named_parameters()]
    loss_fn = SMALL.loss()

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, parameters, strict=True))
        value: torch.Tensor = loss_fn(torch.func.functional_call(network, named, images), labels)
        return value

    parameters = tuple(network.parameters())
    assert torch.autograd.gradcheck(loss, parameters, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_an_update_leaves_the_derivative_at_the_weights_before_it() -> None:
    """The gradient is the derivative evaluated at the current weights on the current batch."""
    images, labels = first_digits(32, torch.float64)
    network = Baseline(hidden_width=16, init_std=0.1).network().double()
    before, loss_fn = copy.deepcopy(network), SMALL.loss()
    update(SMALL, network, images, labels)

    def loss_along(index: int, direction: torch.Tensor, distance: float) -> float:
        moved = copy.deepcopy(before)
        with torch.no_grad():
            list(moved.parameters())[index].add_(direction, alpha=distance)
            return float(loss_fn(moved(images), labels))

    for index, gradient in enumerate(gradients(network)):
        direction = torch.randn_like(gradient)
        ahead, behind = (loss_along(index, direction, distance) for distance in (1e-6, -1e-6))
        slope = (ahead - behind) / 2e-6
        # Central differences of 1e-6 in double precision are good to about 1e-9.
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-6, abs=1e-8)


def test_backward_leaves_a_concrete_tensor_in_every_grad() -> None:
    """Each parameter gets an array of numbers of its own shape, nothing symbolic."""
    network = SMALL.network()
    assert all(parameter.grad is None for parameter in network.parameters())
    update(SMALL, network, *first_digits(8))
    for parameter, gradient in zip(network.parameters(), gradients(network), strict=True):
        assert (gradient.shape, gradient.dtype) == (parameter.shape, parameter.dtype)
        assert gradient.isfinite().all()
        assert gradient.any()
        assert not gradient.requires_grad
        assert gradient.grad_fn is None


def test_gradients_belong_to_the_current_weights_and_the_current_batch() -> None:
    """Another batch, or the same batch after a step, has other gradients."""
    images, labels = first_digits(8)
    others = DIGITS.train.batch(torch.arange(8, 16))
    start = SMALL.network()

    def gradients_of(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Any:
        update(SMALL, network, *batch)
        return gradients(network)

    network = copy.deepcopy(start)
    first = gradients_of(network, (images, labels))
    assert same_bits(first, gradients_of(copy.deepcopy(start), (images, labels)))
    assert not same_bits(first, gradients_of(copy.deepcopy(start), others))
    assert not same_bits(first, gradients_of(network, (images, labels)))


@pytest.mark.parametrize("lr", [0.1, 0.7])
def test_a_step_is_theta_minus_lr_times_gradient(lr: float) -> None:
    """Every parameter moves against its gradient by the learning rate times it."""
    experiment = Baseline(dataset="digits", hidden_width=16, lr=lr)
    network, loss_fn = experiment.network(), experiment.loss()
    optimizer = experiment.optimizer(network.parameters())
    # Several steps with one optimizer: momentum would not show in the first.
    for start in (0, 32, 64):
        before = values(network)
        batch = DIGITS.train.batch(torch.arange(start, start + 32))
        experiment.update(network, loss_fn, optimizer, *batch)
        for theta, after, gradient in zip(before, values(network), gradients(network), strict=True):
            assert not torch.equal(after, theta)
            step = lr * gradient.double()
            exact = theta.double() - step
            # To within float32 rounding, half an epsilon each: lr, its product with the gradient,
            # and the difference. Kernels may fuse the last two, so the bits are not promised.
            epsilon = torch.finfo(torch.float32).eps
            bound = epsilon * (step.abs() + exact.abs())
            assert bool(((after.double() - exact).abs() <= bound).all())


def test_a_step_updates_every_trainable_parameter_and_no_other() -> None:
    """The optimizer moves all parameters that are trained; frozen ones stay."""
    network = SMALL.network()
    frozen, trained = linear_layers(network)
    frozen.requires_grad_(False)
    frozen_before, trained_before = values(frozen), values(trained)
    update(SMALL, network, *first_digits(32))
    assert same_bits(frozen_before, values(frozen))
    for before, after in zip(trained_before, values(trained), strict=True):
        assert not torch.equal(before, after)


def steps_in_double(lr: float, factor: float) -> list[torch.Tensor]:
    """How far one update moves each parameter, with the loss multiplied by a factor."""
    torch.manual_seed(0)
    experiment = Baseline(dataset="digits", hidden_width=8, lr=lr)
    network = experiment.network().double()
    before = values(network)
    loss_fn = ScaledLoss(experiment.loss(), factor)
    update(experiment, network, *first_digits(32, torch.float64), loss_fn)
    return [after - theta for after, theta in zip(values(network), before, strict=True)]


def assert_multiple(steps: list[torch.Tensor], factor: float, unit: list[torch.Tensor]) -> None:
    for step, one in zip(steps, unit, strict=True):
        assert one.any()
        # The steps are differences of double precision weights below 1: good to about 1e-16.
        torch.testing.assert_close(step, factor * one, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("factor", [0.5, 3.0, 100.0])
def test_the_learning_rate_determines_the_step_size(factor: float) -> None:
    """With the same gradients, the step is proportional to the learning rate."""
    assert_multiple(steps_in_double(0.01 * factor, 1), factor, steps_in_double(0.01, 1))


@pytest.mark.parametrize("factor", [0.5, 3.0, 100.0])
def test_larger_gradients_make_proportionally_larger_steps(factor: float) -> None:
    """With the same learning rate, the step is proportional to the gradient."""
    assert_multiple(steps_in_double(0.1, factor), factor, steps_in_double(0.1, 1))


def test_a_large_gradient_means_a_sensitive_loss() -> None:
    """A small step lowers the loss by the learning rate times the squared gradient."""
    lr = 1e-6
    experiment = Baseline(dataset="digits", hidden_width=8, lr=lr, init_std=0.1)
    images, labels = first_digits(32, torch.float64)
    network = experiment.network().double()
    _, before = update(experiment, network, images, labels)
    after = experiment.loss()(network(images), labels)
    squared = sum(gradient.square().sum().item() for gradient in gradients(network))
    # To first order in the step; the second order is smaller by about its length.
    assert (before - after).item() == pytest.approx(lr * squared, rel=1e-3)


def test_the_loop_trains() -> None:
    """The five steps, repeated over batches and epochs, solve the optimization problem."""
    experiment = Baseline(dataset="digits", hidden_width=32, batch_size=32, num_epochs=6)
    results = list(training_of(experiment, DIGITS.train, DIGITS.test).epochs())
    losses = [result.metrics["train/loss"] for result in results]
    assert losses[0] > 2 * losses[-1]
    # A guess among ten classes is right one time in ten.
    assert results[-1].metrics["test/accuracy"] > 0.7


# Evaluation.


def outputs_in_evaluation(training: Training, layer: nn.Module) -> tuple[torch.Tensor, ...]:
    """What goes into a layer and comes out of it while the first test batch is evaluated."""
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = layer.register_forward_hook(
        lambda _, inputs, output: passed.append((inputs[0].detach(), output.detach()))
    )
    training.evaluate()
    hook.remove()
    return passed[0]


def regularized_training() -> Training:
    experiment = Regularized(dataset="digits", batch_size=32, num_epochs=1)
    training = training_of(experiment, numbered_images(96), DIGITS.test)
    list(training.epochs())
    return training


def layer_of(network: nn.Module, kind: Callable[..., nn.Module]) -> Any:
    (layer,) = (module for module in network.modules() if type(module) is kind)
    return layer


def test_evaluation_mode_switches_dropout_off() -> None:
    """Dropout drops and rescales units in training, and passes all of them in evaluation."""
    training = regularized_training()
    dropout = layer_of(training.network, nn.Dropout)
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = dropout.register_forward_hook(
        lambda _, inputs, output: passed.append((inputs[0].detach(), output.detach()))
    )
    training.network.train()
    update(training.experiment, training.network, *first_digits(32))
    hook.remove()
    ((before, after),) = passed
    kept = after != 0
    assert torch.equal(after[kept], 2 * before[kept])
    assert bool((before[~kept] != 0).any())

    before, after = outputs_in_evaluation(training, dropout)
    assert before.any()
    assert torch.equal(before, after)
    assert training.evaluate() == training.evaluate()


def test_evaluation_mode_switches_batchnorm_to_running_statistics() -> None:
    """BatchNorm uses a batch's own mean and variance in training, stored ones in evaluation."""
    training = regularized_training()
    network = training.network
    norm = layer_of(network, nn.BatchNorm1d)
    images, _ = first_digits(32)

    network.train()
    stored = norm.running_mean.clone()
    together = nn.Sequential(*list(network.children())[:3])(images)
    torch.testing.assert_close(together.mean(dim=0), norm.bias, atol=1e-5, rtol=0)
    assert not torch.equal(norm.running_mean, stored)

    stored = norm.running_mean.clone()
    before, after = outputs_in_evaluation(training, norm)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(after, ((before - stored) * scale + norm.bias).detach())
    assert torch.equal(norm.running_mean, stored)
    # An image is then judged by itself, whatever else is in its batch.
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_each_epoch_trains_in_training_mode_and_evaluates_in_evaluation_mode() -> None:
    """The mode is set anew for each epoch: evaluation must not last into the next one."""
    modes: list[tuple[bool, bool]] = []
    experiment = Regularized(dataset="digits", batch_size=64, num_epochs=2)
    images = numbered_images(64)
    training = training_of(experiment, images, images)
    training.network.register_forward_hook(
        lambda network, _, logits: modes.append((network.training, logits.requires_grad))
    )
    list(training.epochs())
    assert modes == [(True, True), (False, False)] * 2


def test_no_grad_changes_gradient_tracking_and_not_the_values() -> None:
    """Without tracking the logits are the same numbers, but nothing can be differentiated."""
    images, labels = first_digits(32)
    network = SMALL.network()
    tracked = network(images)
    with torch.no_grad():
        untracked = network(images)
    assert torch.equal(tracked, untracked)
    assert tracked.requires_grad
    assert not untracked.requires_grad
    assert untracked.grad_fn is None
    with pytest.raises(RuntimeError, match="does not require grad"):
        SMALL.loss()(untracked, labels).backward()


def test_no_grad_saves_memory() -> None:
    """With tracking, tensors are kept for the backward pass; evaluation keeps none."""
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    images = numbered_images(32)
    training = training_of(SMALL, images, images)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        update(SMALL, training.network, *images.batch(torch.arange(32)))
        assert sum(kept) >= 32 * 784 * 4
        kept.clear()
        training.evaluate()
    assert not kept


def test_evaluation_mode_and_no_grad_are_two_separate_states() -> None:
    """One switches layers and keeps tracking gradients, the other does the reverse."""
    images, _ = first_digits(32)
    network = Regularized().network()
    network.eval()
    assert network(images).requires_grad
    network.train()
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))


def test_evaluation_changes_no_weights() -> None:
    """Evaluating reads the model: weights, running statistics and gradients stay."""
    training = regularized_training()
    network = training.network
    state = copy.deepcopy(network.state_dict())
    left = gradients(network)
    training.evaluate()
    assert same_bits(list(state.values()), list(network.state_dict().values()))
    assert same_bits(left, gradients(network))


def test_accuracy_is_the_fraction_of_right_argmaxes() -> None:
    """The share of images whose largest logit is at their label."""
    images, _ = first_digits(40)
    pixels = DIGITS.train.inputs[:40]
    # 40 images in batches of 16, 16 and 8: the mean of the batches' accuracies is another number.
    experiment = Baseline(dataset="digits", hidden_width=16, batch_size=16, init_std=0.3)
    network = training_of(experiment, DIGITS.train, DIGITS.test).network
    predicted = network(images).argmax(dim=1)
    assert len(predicted.unique()) > 1
    for right in (0, 1, 33, 40):
        labels = torch.where(torch.arange(40) < right, predicted, (predicted + 1) % 10)
        evaluation = training_of(experiment, DIGITS.train, Examples(pixels, labels)).evaluate()
        assert evaluation["accuracy"] == right / 40
        loss = experiment.loss()(network(images), labels).item()
        assert evaluation["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("init_std", [0.01, 0.3])
def test_softmax_preserves_the_order_of_the_logits(init_std: float) -> None:
    """The class with the largest logit is the class with the largest probability."""
    images, _ = first_digits(256, torch.float64)
    logits = Baseline(hidden_width=16, init_std=init_std).network().double()(images)
    probabilities = torch.softmax(logits, dim=1)
    assert torch.equal(logits.argmax(dim=1), probabilities.argmax(dim=1))
    assert torch.equal(logits.argsort(dim=1), probabilities.argsort(dim=1))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(256, dtype=torch.float64))


def test_the_initializer_accepts_a_linear_layer_without_a_bias() -> None:
    """The initializer zeroes a bias only where a layer has one."""
    layer = nn.Linear(2, 2, bias=False)
    Baseline(init_std=0).init_weights(layer)
    assert layer.bias is None
    assert not layer.weight.any()
