"""The training loop: a generator over a training's state that does not know its listeners.

It draws random numbers in the order of a plain script with two `DataLoader`s. So the same seed,
device and thread count give the same bits (`harness/benchmark/reference.py` is that script).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from harness.base.errors import BadRequest
from harness.base.goals import Goal
from harness.base.metric_names import AVERAGE, LOSS
from harness.training import device as devices
from harness.training.averaging import WeightAverage, recompute_batch_statistics
from harness.training.dataset import Examples
from harness.training.device import Execution
from harness.training.experiment import Experiment
from harness.training.generators import Generators
from harness.training.graph_capture import Update, captured
from harness.training.metrics import (
    MetricTally,
    checked_metrics,
    checked_observations,
    loss_of_examples,
)
from harness.training.misfits import built_network, check_outputs, explained_misfit

EvaluationSet = Literal["test", "validation"]


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch.

    Attributes:
        epoch: counted from 1.
        metrics: `train/loss` and the experiment's metrics, such as `train/accuracy`, the same of
            the evaluation set (`test/` or `validation/`), the experiment's observations,
            `time/train_seconds`, `time/evaluate_seconds`, `time/examples_per_second` and, on CUDA,
            `memory/peak_bytes`; `lr` if there is a schedule; with averaged weights,
            `test/average_loss` and the like. Losses are means over examples; what belongs to
            training is measured during the updates.
    """

    epoch: int
    metrics: dict[str, float]

    @property
    def diverged(self) -> bool:
        """Whether a loss is not finite; further epochs would not repair that."""
        return not all(
            math.isfinite(value) for name, value in self.metrics.items() if name.endswith("/loss")
        )


class Training:
    """A training in progress: everything that its next epoch depends on.

    The random generators are its own: several trainings may take turns in one process.
    """

    def __init__(
        self,
        experiment: Experiment,
        train: Examples,
        evaluation: Examples,
        evaluated_on: EvaluationSet,
        execution: Execution,
        device: torch.device,
        evaluate_each_epoch: bool = True,
        keep_best: Goal | None = None,
    ) -> None:
        """Seed every generator, build the network on the CPU, and move it to the device.

        So every device starts from the same weights. Without `evaluate_each_epoch` the evaluation
        examples are used once, after the last epoch; the numbers stay the same. With `keep_best`
        the weights of the best epoch by that goal are kept in `best_weights`.
        """
        self.experiment = experiment
        self.device = device
        self.evaluated_on = evaluated_on
        self.evaluate_each_epoch = evaluate_each_epoch
        self.generators = Generators(experiment.seed, device)
        with self.generators.active():
            self.network = built_network(experiment).to(device)
            self.loss_fn = experiment.loss().to(device)
            self.optimizer = experiment.optimizer(self.network.parameters())
            self.updates_per_epoch = updates_per_epoch(experiment, len(train))
            num_updates = experiment.num_epochs * self.updates_per_epoch
            self.scheduler = experiment.scheduler(self.optimizer, num_updates)
        self.train_examples = train.to(device)
        self.evaluation_examples = evaluation.to(device)
        metrics = checked_metrics(experiment.metrics())
        self._trained, self._evaluated, self._evaluated_average = (
            MetricTally(metrics, device) for _ in range(3)
        )
        self._per_example = {
            name: metric.per_example for name, metric in metrics.items() if metric.per_example
        }
        self._observes = type(experiment).observe is not Experiment.observe
        self._augments = type(experiment).augment is not Experiment.augment
        self.history: list[EpochResult] = []
        self.keep_best = keep_best
        self.best_weights: dict[str, Any] = {}
        self.examples_seen = 0
        """Images trained on in all epochs so far, counted batch by batch."""
        self.average: WeightAverage | None = None
        if experiment.average_weights != "off":
            self.average = WeightAverage(
                self.network, experiment.average_weights, self.updates_per_epoch
            )
        self._update: Update = self._eager_update
        if execution.capture_graph:
            self._update = self._captured_update()

    def epochs(self) -> Iterator[EpochResult]:
        """Train the remaining epochs, and yield after each one.

        Close the generator to stop early. A diverged epoch is the last one.
        """
        while len(self.history) < self.experiment.num_epochs and not self.diverged:
            with self.generators.active():
                result = self._epoch()
            if self._observes:
                result.metrics.update(checked_observations(self.experiment.observe(self)))
            if self.keep_best and best_epoch(self.history, self.keep_best) == result.epoch:
                self.best_weights = copy.deepcopy(self.network.state_dict())
            yield result

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss was not finite."""
        return bool(self.history) and self.history[-1].diverged

    @property
    def collapsed(self) -> bool:
        """Whether the loss is finite, but nothing was learned; known of a mean cross-entropy only.

        That is so if the last epoch's training loss explains next to nothing of the labels, and one
        class is predicted for all evaluation examples; or if that loss is no better than that of
        equal probabilities, ln(classes), and the predictions are no better than the commonest
        class, by more than two standard errors. (A network may be right and far too sure: then
        it has a large loss, but has learned.)
        """
        cross_entropy = type(self.loss_fn) is torch.nn.CrossEntropyLoss
        if not self.history or self.diverged or not cross_entropy:
            return False
        loss, training_labels = self.history[-1].metrics["train/loss"], self.train_examples.labels
        is_plain = self.loss_fn.reduction == "mean" and self.loss_fn.weight is None
        if not is_plain or training_labels.dtype != torch.int64 or training_labels.ndim != 1:
            return False
        if self.train_examples.rows is not None:
            training_labels = training_labels.index_select(0, self.train_examples.rows)
        shares = torch.bincount(training_labels.cpu()).double() / len(training_labels)
        # Before the evaluation examples are looked at again: almost every training ends here.
        if loss < 0.9 * float(torch.special.entr(shares).sum()):
            return False
        predictions, labels, num_classes = self._predictions()
        n = len(labels)
        commonest = int(torch.bincount(labels).max()) / n
        if commonest == 1:  # whoever predicts the one class there is may have learned it
            return False
        if len(predictions.unique()) == 1:
            return True
        accuracy = int((predictions == labels).sum()) / n
        chance = commonest + 2 * math.sqrt(commonest * (1 - commonest) / n)
        return loss >= math.log(num_classes) and accuracy <= chance

    @torch.no_grad()
    def _predictions(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Predicted and true classes of the evaluation examples, and the number of logits."""
        found = []
        with self.generators.kept():
            for logits, labels in self._outputs():
                found.append((logits.argmax(dim=1), labels))
        predictions, labels = map(torch.cat, zip(*found, strict=True))
        return predictions, labels, logits.shape[1]

    @property
    def num_parameters(self) -> int:
        """The number of trainable numbers of the network."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    @property
    def examples_per_epoch(self) -> int:
        """How many examples an epoch trains on."""
        n = self.updates_per_epoch * self.experiment.batch_size
        return min(n, len(self.train_examples))

    def state(self) -> dict[str, Any]:
        """Everything but the history that the next epoch depends on.

        Its types are those that `torch.load(weights_only=True)` accepts. What a module keeps beside
        its parameters and buffers belongs to it through `get_extra_state`.
        """
        return self._modules_state() | {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "experiment": {name: part.state_dict() for name, part in self._own_parts().items()},
            "generators": self.generators.state(),
            **({"average": self.average.state_dict()} if self.average else {}),
            **({"best": self.best_weights} if self.keep_best else {}),
        }

    def restore(self, state: dict[str, Any], history: Sequence[EpochResult]) -> None:
        """Continue from a state of the same experiment, to the same bits."""
        self._restore_modules(state)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, part in self._own_parts().items():
            part.load_state_dict(state["experiment"][name])
        self.history = list(history)
        self.examples_seen = len(self.history) * self.examples_per_epoch
        if self.average:
            self.average.load_state_dict(state["average"])
        self.generators.restore(state["generators"])
        self.best_weights = state.get("best", {})

    def _modules_state(self) -> dict[str, dict[str, Any]]:
        """The state of network and loss, and the buffers that they keep out of it."""
        return {
            "network": self.network.state_dict(),
            "loss": self.loss_fn.state_dict(),
            "buffers": self._unsaved_buffers(),
        }

    def _restore_modules(self, state: dict[str, dict[str, Any]]) -> None:
        self.network.load_state_dict(state["network"])
        self.loss_fn.load_state_dict(state["loss"])
        for name, buffer in self._unsaved_buffers().items():
            buffer.copy_(state["buffers"][name])

    def _unsaved_buffers(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for part, module in {"network": self.network, "loss": self.loss_fn}.items():
            saved = module.state_dict(keep_vars=True)
            buffers = module.named_buffers(part)
            found |= {name: b for name, b in buffers if name.removeprefix(f"{part}.") not in saved}
        return found

    def _own_parts(self) -> dict[str, Any]:
        """What the experiment's methods keep in its attributes, such as a second network."""
        known = (self.network, self.loss_fn, self.optimizer, self.scheduler)
        return {
            name: part
            for name, part in sorted(vars(self.experiment).items())
            if hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
            if not any(part is each for each in known)
        }

    def weights_digest(self) -> str:
        """SHA-256 of the network's parameters and buffers: names, types, shapes, bits."""
        sha256 = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            if not torch.is_tensor(tensor):  # what `get_extra_state` returns
                sha256.update(f"{name} {tensor!r}".encode())
                continue
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha256.update(
                tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
        return sha256.hexdigest()

    def _epoch(self) -> EpochResult:
        started = self._clock()
        rate = float(self.optimizer.param_groups[0]["lr"])
        train = self._train_epoch()
        trained = self._clock()
        last = len(self.history) + 1 == self.experiment.num_epochs
        # A plain script makes a loader, which draws, whether it evaluates or not.
        _draw_seed()
        evaluation = self.evaluate() if last or self.evaluate_each_epoch else {}
        if evaluation and self.average:
            with self.averaged():
                averages = self._evaluation(self._evaluated_average)
            evaluation |= {f"{AVERAGE}{name}": value for name, value in averages.items()}
        evaluated = self._clock()
        metrics = {
            **{f"train/{name}": value for name, value in train.items()},
            **{f"{self.evaluated_on}/{name}": value for name, value in evaluation.items()},
            "time/train_seconds": trained - started,
            "time/evaluate_seconds": evaluated - trained,
            "time/examples_per_second": self.examples_per_epoch / (trained - started),
        }
        if self.scheduler:
            metrics["lr"] = rate
        if (peak := devices.peak_memory_bytes(self.device)) is not None:
            metrics["memory/peak_bytes"] = float(peak)
        self.history.append(EpochResult(len(self.history) + 1, metrics))
        return self.history[-1]

    def _clock(self) -> float:
        devices.synchronize(self.device)
        return time.perf_counter()

    def _train_epoch(self) -> dict[str, float]:
        self.network.train()
        _draw_seed()
        if self.average:
            self.average.begin_epoch()
        for inputs, labels in self._training_batches(_shuffled(len(self.train_examples))):
            if self._augments:
                inputs = self.experiment.augment(inputs)
            logits, loss = self._checked_update(inputs, labels)
            self._trained.update(logits, loss, labels)
            self.examples_seen += len(labels)
            if self.scheduler:
                self.scheduler.step()
            if self.average:
                self.average.add()
        return self._trained.values()

    def _training_batches(self, order: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of an epoch in an order of the training examples, (n,)."""
        used = order[: self.examples_per_epoch].to(self.device)
        return self.train_examples.batches(self.experiment.batch_size, used)

    def _checked_update(
        self, inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """An update; of the first batch it is told if network and data do not fit together."""
        if self.examples_seen:
            return self._update(inputs, labels)
        try:
            with warnings.catch_warnings():
                # check_outputs says it as an error.
                warnings.filterwarnings("ignore", "Using a target size")
                logits, loss = self._update(inputs, labels)
        except Exception as error:
            raise explained_misfit(error, self.network, inputs) from error
        check_outputs(logits, labels, self.loss_fn)
        return logits, loss

    def evaluate(self) -> dict[str, float]:
        """The mean loss and the metrics on the evaluation examples, in evaluation mode."""
        return self._evaluation(self._evaluated)

    @torch.no_grad()
    def _evaluation(self, tally: MetricTally) -> dict[str, float]:
        for logits, labels in self._outputs():
            tally.update(logits, self.loss_fn(logits, labels), labels)
        return tally.values()

    def _outputs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The logits of each batch of evaluation examples in evaluation mode, and their labels."""
        self.network.eval()
        for inputs, labels in self.evaluation_examples.batches(self.experiment.batch_size):
            yield self.network(inputs), labels

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the network hold the averaged weights, with batch statistics recomputed for them.

        Afterwards all is as it was: weights, buffers, the loss's state, and every generator.
        """
        assert self.average
        before = copy.deepcopy(self._modules_state())
        with torch.no_grad(), self.generators.kept():
            try:
                self.average.write()
                # Not in the data's order: each batch should hold all kinds of examples.
                generator = torch.Generator().manual_seed(self.experiment.seed)
                order = torch.randperm(len(self.train_examples), generator=generator)
                batches = (inputs for inputs, _ in self._training_batches(order))
                recompute_batch_statistics(self.network, batches)
                yield
            finally:
                self._restore_modules(before)

    @torch.no_grad()
    def example_results(self) -> dict[str, torch.Tensor]:
        """The results (m,) on single evaluation examples, by metric, as far as there are such.

        They are those of `evaluate`, before it takes their mean; booleans for yes-or-no metrics.
        Those of averaged weights are with them.
        """
        found = self._example_results()
        if self.average:
            with self.averaged():
                averaged = self._example_results()
            found |= {f"{AVERAGE}{name}": values for name, values in averaged.items()}
        return found

    def _example_results(self) -> dict[str, torch.Tensor]:
        per_example = dict(self._per_example)
        if losses := loss_of_examples(self.loss_fn):
            per_example[LOSS] = losses
        found: dict[str, list[torch.Tensor]] = {name: [] for name in per_example}
        for logits, labels in self._outputs():
            for name, function in per_example.items():
                found[name].append(function(logits, labels))
        return {name: torch.cat(values).cpu() for name, values in found.items()}

    def _eager_update(
        self, inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.experiment.update(self.network, self.loss_fn, self.optimizer, inputs, labels)

    def _captured_update(self) -> Update:
        size = min(self.experiment.batch_size, len(self.train_examples))
        positions = torch.arange(size, device=self.device)
        inputs, labels = (tensor.clone() for tensor in self.train_examples.batch(positions))
        before = copy.deepcopy(self.state())
        self.network.train()
        try:
            with self.generators.active():
                return captured(
                    self._eager_update,
                    inputs,
                    labels,
                    keeps_state=lambda: bool(self.scheduler or any(self.optimizer.state.values())),
                )
        finally:
            self.restore(before, ())


def updates_per_epoch(experiment: Experiment, num_examples: int) -> int:
    """How many batches the training examples make.

    Raises:
        BadRequest: all of them make but a smaller batch, and `drop_last` leaves it out.
    """
    size = experiment.batch_size
    if not experiment.drop_last:
        return -(-num_examples // size)
    if num_examples < size:
        raise BadRequest(
            f"drop_last: no batch is left: batch_size is {size:,}, and there are {num_examples:,} "
            "training examples."
        )
    return num_examples // size


def best_epoch(history: Sequence[EpochResult], goal: Goal) -> int:
    """The epoch with the best value, the earliest of equals; 0 if none has a finite value."""
    values = {result.epoch: result.metrics.get(goal.metric, math.nan) for result in history}
    known = {epoch: goal.sign * value for epoch, value in values.items() if math.isfinite(value)}
    return max(known, key=lambda epoch: (known[epoch], -epoch), default=0)


def _draw_seed() -> int:
    """The number that every iterator over a `DataLoader` draws when it is created."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


def _shuffled(n: int) -> torch.Tensor:
    """The order of `RandomSampler`, whose generator is seeded by a draw from the default one."""
    generator = torch.Generator().manual_seed(_draw_seed())
    return torch.randperm(n, generator=generator)
