"""A study goes on with the code that it began with; rows by different code are not compared."""

from __future__ import annotations

import json
import re
from typing import Literal

import optuna
import pytest
from conftest import QUICK, Checkout

LAYERS = '''"""Layers of the project's own."""

WIDTH = 16
'''

EXPERIMENT = '''"""A perceptron with a layer of the project's own."""

from typing import Annotated

from torch import nn

from harness import Count, Experiment


class Layered(Experiment):
    """One hidden layer, whose width another module says."""

    extra: Annotated[int, Count] = 1
    """Units beside those."""

    def network(self):
        from own_layers import WIDTH

        width = WIDTH + self.extra
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)
        )
'''

STUDY = '''"""Which learning rate."""

from experiments.layered import Layered
from harness import Study

HIGHEST = 0.5


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 0.01, HIGHEST)}


study = Study(experiment=Layered(), suggest=suggest, n_trials=2)
'''

WORDS = ("harness.study", "layered_search", *QUICK, "--confirm-seeds", "2", "--workers", "1")


@pytest.fixture
def layered(checkout: Checkout) -> Checkout:
    (checkout.root / "own_layers.py").write_text(LAYERS)
    (checkout.root / "experiments" / "layered.py").write_text(EXPERIMENT)
    (checkout.root / "studies" / "layered_search.py").write_text(STUDY)
    return checkout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("own_layers.py", "16", "8"),
        ("experiments/layered.py", "nn.ReLU", "nn.Tanh"),
        ("studies/layered_search.py", "HIGHEST = 0.5", "HIGHEST = 0.4"),
    ],
)
def test_a_study_with_changed_code_is_refused_or_marked(
    layered: Checkout, file: str, old: str, new: str
) -> None:
    begun = layered.command(*WORDS)
    assert begun.status == 0, begun.errors
    path = layered.root / file
    path.write_text(path.read_text().replace(old, new))
    refused = layered.command(*WORDS, "--n-trials", "4")
    assert refused.status == 2
    assert f"has changed: {file}" in refused.errors
    assert "--study-name" in refused.errors
    accepted = layered.command(*WORDS, "--n-trials", "4", "--accept-changed-code")
    assert accepted.status == 0, accepted.errors
    stored = optuna.load_study(
        study_name="layered_search", storage=f"sqlite:///{layered.root}/mlruns/optuna.db"
    )
    assert [trial.user_attrs.get("version", 1) for trial in stored.trials] == [1, 1, 2, 2]
    confirmed = [run for run in layered.runs() if run.data.tags["harness.kind"] == "confirm"]
    anew = [run for run in confirmed if run.data.tags.get("harness.code_version") == "2"]
    configs = {run.data.tags["harness.config"] for run in anew}
    assert {"best", "defaults"} >= configs
    assert len(anew) == 2 * len(configs)
    shown = layered.command("harness.compare", "--study", "layered_search")
    assert "version" in shown.output, shown.errors
    report = layered.command("harness.report", "layered_search", "--out", "page.html")
    assert report.status == 0, report.errors
    assert "code version 2" in (layered.root / "page.html").read_text()
    # It is the declared code now.
    assert layered.command(*WORDS, "--n-trials", "4").status == 0


def test_rows_by_different_code_are_not_subtracted(layered: Checkout) -> None:
    words = ("harness.run", "layered", *QUICK, "--no-figures", "--repeats", "2")
    assert layered.command(*words).status == 0
    path = layered.root / "own_layers.py"
    path.write_text(path.read_text().replace("16", "4"))
    assert layered.command(*words).status == 0
    groups = [run for run in layered.runs() if run.data.tags["harness.kind"] == "group"]
    assert len(groups) == 2
    one = groups[0].info.run_id
    shown = layered.command("harness.compare", "--against", one, "--json", "rows.json")
    assert shown.status == 0, shown.errors
    assert "other code" in shown.output
    rows = json.loads((layered.root / "rows.json").read_text())
    rows = rows["rows"] if isinstance(rows, dict) else rows
    assert len(rows) == 2, "runs by different code make no row together"
    assert all(row.get("difference") is None for row in rows)


def test_a_comment_elsewhere_in_the_project_changes_nothing(layered: Checkout) -> None:
    assert layered.command(*WORDS).status == 0
    (layered.root / "unrelated.py").write_text("x = 1\n")
    (layered.root / "experiments" / "baseline.py").write_text("# empty\n")
    again = layered.command(*WORDS, "--n-trials", "3")
    assert again.status == 0, again.errors


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"]])
def test_a_stored_study_of_another_direction_is_refused(
    checkout: Checkout, directions: list[Literal["minimize", "maximize"]]
) -> None:
    (checkout.root / "mlruns").mkdir()
    optuna.create_study(
        storage=f"sqlite:///{checkout.root}/mlruns/optuna.db",
        study_name="lr_search",
        directions=directions,
    )
    refused = checkout.command("harness.study", "lr_search", *QUICK)
    assert refused.status == 2
    assert re.search(r"was created to .*minimize; declared is: maximize", refused.errors)


def test_a_trial_of_other_ranges_is_refused(checkout: Checkout) -> None:
    words = ("harness.study", "lr_search", *QUICK, "--confirm-seeds", "0", "--workers", "1")
    assert checkout.command(*words, "--n-trials", "1").status == 0
    stored = optuna.load_study(
        study_name="lr_search", storage=f"sqlite:///{checkout.root}/mlruns/optuna.db"
    )
    other = optuna.distributions.FloatDistribution(0.1, 0.2, log=True)
    stored.add_trial(
        optuna.create_trial(params={"lr": 0.15}, distributions={"lr": other}, value=0.5)
    )
    refused = checkout.command(*words, "--n-trials", "3")
    assert refused.status == 2
    assert "has a trial of other ranges: lr of trial 1" in refused.errors
