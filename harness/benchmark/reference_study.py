"""The yardstick of studies: Optuna's usual loop around the plain script, one trial after another.

    python -m harness.benchmark.reference_study --dataset MNIST --data-root data --n-trials 12

It imports nothing of the harness but its plain script. The data set is read once, which the usual
way often does in every trial.
"""

from __future__ import annotations

import argparse
import json
import time

import optuna
import torch
from torch.utils.data import Subset

from harness.benchmark.reference import train


def main() -> None:
    """Search the learning rate and print one JSON line a trial."""
    from torchvision import datasets, transforms

    parser = argparse.ArgumentParser(description="Search the plain script's learning rate.")
    parser.add_argument("--dataset", default="FashionMNIST", help="class of torchvision.datasets")
    parser.add_argument("--data-root", default="data", help="folder of the data sets")
    parser.add_argument("--num-epochs", type=int, default=10, help="passes over the images")
    parser.add_argument("--n-trials", type=int, default=12, help="trials to run")
    parser.add_argument("--low", type=float, default=1e-3, help="lowest learning rate")
    parser.add_argument("--high", type=float, default=1.0, help="highest learning rate")
    arguments = parser.parse_args()
    dataset = getattr(datasets, arguments.dataset)(
        arguments.data_root, train=True, download=True, transform=transforms.ToTensor()
    )
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    validation_size = len(dataset) // 6
    validation = Subset(dataset, order[:validation_size].sort().values.tolist())
    rest = Subset(dataset, order[validation_size:].sort().values.tolist())

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", arguments.low, arguments.high, log=True)
        started = time.perf_counter()
        _, epochs = train(rest, validation, lr=lr, num_epochs=arguments.num_epochs)
        value = epochs[-1]["test/accuracy"]
        seconds = time.perf_counter() - started
        print(json.dumps({"lr": lr, "value": value, "seconds": seconds}), flush=True)
        return value

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial({"lr": 0.1})
    study.optimize(objective, n_trials=arguments.n_trials)


if __name__ == "__main__":
    main()
