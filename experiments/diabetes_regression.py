"""Regression on a table: the progression of diabetes one year on, from ten measurements.

    python -m harness.run diabetes_regression

442 patients of Efron et al. (Least angle regression, 2004), in the table that scikit-learn brings
along. One in five, drawn once, is for testing. Columns and target are standardized by the training
patients; both errors are in the units of the target, which goes from 25 to 346.
"""

from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from harness import Count, Dataset, Experiment, Metric

TARGET_MEAN, TARGET_STD = 150.0, 77.0
"""Of the target, rounded: the network works in standard deviations from the mean."""


class DiabetesRegression(Experiment):
    """One hidden layer of ReLUs, trained on the mean squared error."""

    lr = 0.03
    batch_size = 32
    num_epochs = 40
    hidden_width: Annotated[int, Count] = 16
    """Units of the hidden layer."""

    def data(self, root: Path) -> Dataset:
        # Imported here: it takes seconds, and listings do without it.
        from sklearn.datasets import load_diabetes

        table, target = load_diabetes(return_X_y=True, scaled=False)
        x = torch.from_numpy(table).float()
        y = (torch.from_numpy(target).float() - TARGET_MEAN) / TARGET_STD
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        test, train = order[: len(x) // 5], order[len(x) // 5 :]
        x = (x - x[train].mean(dim=0)) / x[train].std(dim=0)
        return Dataset.from_arrays("diabetes", train=(x[train], y[train]), test=(x[test], y[test]))

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(10, self.hidden_width),
            nn.ReLU(),
            nn.Linear(self.hidden_width, 1),
            nn.Flatten(0),
        )

    def loss(self) -> nn.Module:
        return nn.MSELoss()

    def metrics(self) -> dict[str, Metric]:
        return {
            "mean_absolute_error": Metric(best="min", per_example=absolute_error),
            "mean_squared_error": Metric(best="min", per_example=squared_error),
        }


def absolute_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each patient, (b,), in the units of the target."""
    return TARGET_STD * (outputs - labels).abs()


def squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each patient, (b,), in the squared units of the target."""
    return absolute_error(outputs, labels) ** 2
