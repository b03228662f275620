"""The yardstick: a plain PyTorch script, as one would write it without the harness.

    python -m harness.benchmark.reference --dataset MNIST --data-root data --num-epochs 10

It imports nothing of the harness. The tests demand that the harness gives these very numbers, and
the benchmark times the two against each other.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader


def baseline() -> nn.Module:
    """The perceptron 784-256-10 with weights from N(0, 0.01) and zero biases."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 256), nn.ReLU(), nn.Linear(256, 10))

    def init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    return net.apply(init_weights)


def train(
    train_dataset: Any,
    test_dataset: Any,
    build_net: Callable[[], nn.Module] = baseline,
    *,
    seed: int = 0,
    lr: float = 0.1,
    batch_size: int = 256,
    num_epochs: int = 10,
    drop_last: bool = False,
    weigh_examples: bool = False,
    device: str = "cpu",
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train with two loaders and the five-step loop, evaluating after each epoch.

    Args:
        drop_last: leave the last batch out if it is smaller.
        weigh_examples: let each example weigh the same, also in a smaller last batch.

    Returns:
        The network, and each epoch's losses, accuracies and seconds.
    """
    torch.manual_seed(seed)
    net = build_net().to(device)
    train_loader = DataLoader(
        train_dataset, batch_size=batch_size, shuffle=True, num_workers=0, drop_last=drop_last
    )
    test_loader = DataLoader(test_dataset, batch_size=batch_size, shuffle=False, num_workers=0)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    epochs = []
    for _ in range(num_epochs):
        start = time.perf_counter()
        net.train()
        total_loss, correct, count = 0.0, 0, 0
        for X, y in train_loader:  # noqa: N806
            X, y = X.to(device), y.to(device)  # noqa: N806
            logits = net(X)
            loss = loss_fn(logits, y)
            optimizer.zero_grad()
            if weigh_examples:
                (loss * (len(y) / batch_size)).backward()
            else:
                loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(y)
            correct += int((logits.argmax(dim=1) == y).sum())
            count += len(y)
        trained = time.perf_counter()
        net.eval()
        test_loss, test_correct, test_count = 0.0, 0, 0
        with torch.no_grad():
            for X, y in test_loader:  # noqa: N806
                X, y = X.to(device), y.to(device)  # noqa: N806
                logits = net(X)
                test_loss += loss_fn(logits, y).item() * len(y)
                test_correct += int((logits.argmax(dim=1) == y).sum())
                test_count += len(y)
        epochs.append(
            {
                "train/loss": total_loss / count,
                "train/accuracy": correct / count,
                "test/loss": test_loss / test_count,
                "test/accuracy": test_correct / test_count,
                "time/train_seconds": trained - start,
                "time/evaluate_seconds": time.perf_counter() - trained,
            }
        )
    return net, epochs


def main() -> None:
    """Train the baseline and print one JSON line an epoch."""
    from torchvision import datasets, transforms

    parser = argparse.ArgumentParser(description="Train the plain baseline script.")
    parser.add_argument("--dataset", default="FashionMNIST", help="class of torchvision.datasets")
    parser.add_argument("--data-root", default="data", help="folder of the data sets")
    parser.add_argument("--num-epochs", type=int, default=10, help="passes over the images")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random draw")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0: its choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transform = transforms.ToTensor()
    parts = [
        getattr(datasets, arguments.dataset)(
            arguments.data_root, train=part, download=True, transform=transform
        )
        for part in (True, False)
    ]
    _, epochs = train(
        *parts, seed=arguments.seed, num_epochs=arguments.num_epochs, device=arguments.device
    )
    for epoch in epochs:
        print(json.dumps(epoch))


if __name__ == "__main__":
    main()
