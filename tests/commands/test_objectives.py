"""Studies with other objectives than the accuracy: one, or several with their front."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from conftest import Checkout

from harness.tracking.reader import DatabaseReader

SEVERAL = '''"""How accurate can how small a network be?"""

from experiments.baseline import Baseline
from harness import FloatDistribution, IntDistribution, Objective, Study

study = Study(
    experiment=Baseline(dataset="digits", num_epochs=1),
    space={
        "lr": FloatDistribution(0.01, 1.0, log=True),
        "hidden_width": IntDistribution(4, 256, log=True),
    },
    objectives=[
        Objective("validation/accuracy", "maximize"),
        Objective("model/parameters", "minimize"),
    ],
    n_trials=8,
)
'''

QUICK = ("--threads", "1", "--workers", "1", "--sampler", "random", "--confirm-seeds", "2")


def study(checkout: Checkout, *words: str, status: int = 0) -> str:
    ended = checkout.command("harness.study", *words)
    assert ended.status == status, ended.output + ended.errors
    return ended.output if status == 0 else ended.errors


def artifacts(checkout: Checkout, run_id: str) -> Path:
    (folder,) = (checkout.root / "mlruns" / "artifacts").glob(f"*/{run_id}/artifacts")
    return folder


def test_several_objectives_give_a_front_that_is_confirmed(checkout: Checkout) -> None:
    (checkout.root / "studies" / "several.py").write_text(SEVERAL)
    refused = study(checkout, "several", *QUICK, "--pruner", "median", status=2)
    assert refused == (
        "error: pruner: median cannot judge an epoch by several objectives; use none.\n"
    )
    output = study(checkout, "several", *QUICK)
    assert "trial | validation accuracy (maximized) | model parameters (minimized)" in output
    reader = DatabaseReader(checkout.store)
    (run,) = (run for run in reader.runs("several") if run.kind == "study")
    folder = artifacts(checkout, run.run_id)
    answer = json.loads((folder / "study.json").read_text())
    trials = list(csv.DictReader((folder / "trials.csv").open()))
    points = {
        int(t["number"]): (float(t["value 1"]), float(t["value 2"]))
        for t in trials
        if t["outcome"] == "completed"  # one epoch may be too short to learn anything
    }
    front = {
        number
        for number, (accuracy, size) in points.items()
        if not any(
            a >= accuracy and s <= size and (a, s) != (accuracy, size) for a, s in points.values()
        )
    }
    shown = {trial["trial"] for trial in answer["chosen"]}
    assert shown <= front
    assert {points[number] for number in shown} == {points[number] for number in front}
    for trial in answer["chosen"]:
        width = trial["parameters"]["hidden_width"]
        assert trial["values"][1] == 784 * width + width + width * 10 + 10
    expected = {f"trial {number}" for number in shown}
    assert set(answer["confirmed"]) - {"defaults"} == expected
    for confirmation in answer["confirmed"].values():
        assert set(confirmation["values"]) == {"test/accuracy", "model/parameters"}
        assert len(confirmation["values"]["test/accuracy"]) == 2
    pictures = {path.name for path in (folder / "figures").glob("*.png")}
    assert {"pareto_front_model_parameters.png", "confirmation.png"} <= pictures
    page = (folder / "report.html").read_text()
    assert "The front: no other trial beats these in all objectives" in page
    assert study(checkout, "several", *QUICK).startswith("several has finished already")
    compared = checkout.command("harness.compare", "--study", "several")
    assert compared.status == 0, compared.errors


def test_an_objective_of_the_command_line_selects_and_stays_the_same(checkout: Checkout) -> None:
    lr_search = ("lr_search", "--dataset", "digits", "--num-epochs", "1", "--n-trials", "4", *QUICK)
    refused = study(checkout, *lr_search, "--objective", "test/loss", status=2)
    assert "use validation/loss" in refused
    refused = study(checkout, *lr_search, "--objective", "validation/los", status=2)
    assert "Did you mean validation/loss" in refused
    assert not checkout.store.exists()
    output = study(checkout, *lr_search, "--objective", "validation/loss")
    reader = DatabaseReader(checkout.store)
    trials = [run for run in reader.runs("lr_search") if run.kind == "trial"]
    lowest = min(trials, key=lambda run: run.metrics["validation/loss"])
    assert f"Best: trial {lowest.tag('trial')}, " in output
    assert "(n = 1 seed, selected as the lowest)" in output
    assert "| configuration | test loss | n seeds |" in output
    changed = study(checkout, *lr_search, status=2)
    assert "has another declaration" in changed
    assert "validation/loss was minimize, is not there" in changed
