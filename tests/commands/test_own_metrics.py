"""Own metrics and observations: recorded, shown, compared, drawn and reported under their names."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import Checkout

from harness.tracking.reader import DatabaseReader

MEASURED = '''"""Judged by a metric of which less is better."""

import torch
from torch import nn

from harness import Experiment, Metric


def margin(logits, labels):
    right = logits.gather(1, labels[:, None])[:, 0]
    return logits.amax(1) - right


class Measured(Experiment):
    def metrics(self):
        return {"shortfall": Metric(best="min", per_example=margin), "largest": Metric(Largest)}

    def observe(self, training):
        return {"weight_norm": sum(float(p.norm()) for p in training.network.parameters())}

    def network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Largest:
    def __init__(self):
        self.reset()

    def reset(self):
        self.value = torch.tensor(-torch.inf)

    def update(self, logits, labels):
        self.value = torch.maximum(self.value, logits.max())

    def compute(self):
        return self.value
'''

FLAGS = ("measured", "--dataset", "digits", "--num-epochs", "2", "--threads", "1")


@pytest.fixture
def measured(checkout: Checkout) -> Checkout:
    (checkout.root / "experiments" / "measured.py").write_text(MEASURED)
    return checkout


def test_own_metrics_reach_every_command(measured: Checkout, tmp_path: Path) -> None:
    slow = measured.run(*FLAGS, "--lr", "0.005")
    fast = measured.run(*FLAGS, "--lr", "0.05")
    assert (slow.status, fast.status) == (0, 0), slow.errors + fast.errors
    assert "test loss " in fast.output
    assert " shortfall " in fast.output
    assert " weight_norm " in fast.output
    assert "accuracy" not in fast.output

    run = DatabaseReader(measured.store).run(fast.run_id)
    assert run.directions == {"shortfall": "min", "largest": None, "loss": "min"}
    assert run.objective == "test/shortfall"
    assert {"train/shortfall", "train/largest", "test/largest", "weight_norm"} <= run.metrics.keys()
    assert run.best.keys() == {f"{p}/{m}" for p in ("train", "test") for m in ("shortfall", "loss")}

    table = tmp_path / "table.csv"
    compared = measured.command("harness.compare", "--experiment", "measured", "--csv", str(table))
    assert compared.status == 0, compared.errors
    assert "accuracy" not in compared.output
    rows = list(csv.DictReader(table.open()))
    assert [row["row"] for row in rows] == [fast.run_id[:8], slow.run_id[:8]], "least comes first"
    assert float(rows[0]["metrics.test/shortfall"]) == run.metrics["test/shortfall"]

    page = tmp_path / "report.html"
    reported = measured.command("harness.report", "measured", "--out", str(page))
    assert reported.status == 0, reported.errors
    assert "Lowest shortfall" in page.read_text()
    assert "accuracy" not in page.read_text().lower()

    repeated = measured.command("harness.verify", fast.run_id)
    assert repeated.status == 0, repeated.output + repeated.errors
    (drawn,) = (measured.root / "mlruns").rglob(f"{fast.run_id}/artifacts/figures/*curves.csv")
    assert drawn.read_text().splitlines()[0].split(",")[:3] == [
        "epoch",
        "train/loss",
        "train/shortfall",
    ]


def test_a_wrong_metric_is_a_bad_request(checkout: Checkout) -> None:
    text = MEASURED.replace('"largest": Metric(Largest)', '"largest": Largest()')
    (checkout.root / "experiments" / "measured.py").write_text(text)
    ended = checkout.run(*FLAGS)
    assert ended.status == 2
    assert ended.errors.startswith("error: metrics(): largest: expected a Metric")
    assert "Traceback" not in ended.errors
