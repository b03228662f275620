"""Experiments and studies run from Python: in a script, in a notebook's cell, in threads."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

from conftest import Checkout

from harness.tracking.reader import DatabaseReader

CELL = """
    import json, threading
    import torch
    from torch import nn
    import harness
    from harness import Experiment, FloatDistribution, Study

    print("begins")


    class Cell(Experiment):
        width: int = 16

        def network(self):
            hidden = nn.Linear(784, self.width)
            return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(self.width, 10))


    small = {"dataset": "digits", "num_epochs": 2}
"""


def python(checkout: Checkout, text: str) -> tuple[list[str], Any]:
    """Run a script whose last line prints JSON; return what it printed before, and that."""
    path = checkout.root / "script.py"
    path.write_text(textwrap.dedent(CELL) + textwrap.dedent(text))
    ended = subprocess.run(
        [sys.executable, str(path)],
        cwd=checkout.root,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *before, last = ended.stdout.splitlines()
    return before, json.loads(last)


def test_a_study_of_a_cells_experiment_is_searched_by_started_workers(checkout: Checkout) -> None:
    printed, found = python(
        checkout,
        """
        threading.Thread(target=threading.Event().wait, daemon=True).start()  # so none is forked
        study = Study(experiment=Cell(**small), space={"lr": FloatDistribution(0.01, 1)})
        answer = harness.run_study(
            study, study_name="cells", n_trials=3, workers=2, threads=1, confirm_seeds=2
        )
        options = {"n_trials": 3, "confirm_seeds": 2, "quiet": True}
        again = harness.run_study(study, study_name="cells", **options)
        same = again.verdict == answer.verdict
        words = [repr(answer), answer._repr_html_()]
        print(json.dumps({"same": same, "verdict": answer.verdict, "words": words}))
        """,
    )
    assert printed[0] == "begins"
    assert printed.count("begins") == 1, "no worker runs the script again"
    assert any(line.startswith("[3/3] trial") for line in printed)
    assert found["same"]
    short, table = found["words"]
    assert short.startswith("<study cells: trials: 3 of 3 trials, best: trial ")
    assert found["verdict"] in short
    assert table.startswith("<table><caption>study cells</caption>")
    runs = DatabaseReader(checkout.store).runs("cells")
    assert [run.kind for run in runs].count("trial") == 3
    assert {run.outcome for run in runs} == {"completed"}


def test_a_study_in_a_file_goes_on_from_either_side(checkout: Checkout) -> None:
    flags = ("--dataset", "digits", "--num-epochs", "1", "--threads", "1", "--confirm-seeds", "1")
    begun = checkout.command("harness.study", "lr_search", *flags, "--n-trials", "1")
    assert begun.status == 0, begun.errors
    (checkout.root / "studies" / "tiny.py").write_text(
        "from experiments.baseline import Baseline\n"
        "from harness import FloatDistribution, Study\n"
        'study = Study(experiment=Baseline(dataset="digits", num_epochs=1), n_trials=2,\n'
        '    space={"lr": FloatDistribution(0.01, 1)})\n'
    )
    printed, found = python(
        checkout,
        """
        answer = harness.run_study("tiny", threads=1, confirm_seeds=1, quiet=True)
        print(json.dumps({"command": answer.answer()["command"]}))
        """,
    )
    assert printed == ["begins"]
    assert found["command"] == "python -m harness.study tiny --confirm-seeds 1 --threads 1 --quiet"
    words = found["command"].split()
    ended = checkout.command(words[2], *words[3:])
    assert ended.output.startswith("tiny has finished already")


def test_bad_requests_from_python_are_errors_with_a_sentence(checkout: Checkout) -> None:
    _, found = python(
        checkout,
        """
        study = Study(experiment=Cell(**small), space={"lr": FloatDistribution(0.01, 1)})
        calls = [
            lambda: harness.run_study(study),
            lambda: harness.run_study("lr_serach"),
            lambda: harness.run_study(3, study_name="x"),
            lambda: harness.run_study("lr_search", n_trials=0),
            lambda: harness.run_study("lr_search", sampler="tep"),
            lambda: harness.load_model("12345678"),
            lambda: harness.load_model(3),
            lambda: harness.run_experiment(Cell(**small), start_from="12345678"),
        ]
        said = []
        for call in calls:
            try:
                call()
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        print(json.dumps(said))
        """,
    )
    expected = [
        "BadRequest: study_name: a study that is in no file needs a name.",
        "BadRequest: There is no study 'lr_serach' in studies/. Did you mean lr_search?",
        "BadRequest: study: expected the name of a study, or a Study, got 3.",
        "BadRequest: n_trials: 0 is not allowed, it must be at least 1.",
        "BadRequest: sampler: 'tep' is not allowed. Did you mean tpe?",
        "BadRequest: run: there is no run '12345678' here.",
        "BadRequest: run: expected the id of a run, got 3.",
        "BadRequest: start_from: there is no run '12345678' here.",
    ]
    assert len(found) == len(expected)
    for said, words in zip(found, expected, strict=True):
        assert said.startswith(words), said


def test_threads_are_served_one_after_another(checkout: Checkout) -> None:
    _, found = python(
        checkout,
        """
        def train(seed, digests):
            result = harness.run_experiment(Cell(seed=seed, **small), quiet=True, figures=False)
            digests[seed] = result.weights_sha256

        alone, together = {}, {}
        for seed in (0, 1):
            train(seed, alone)
        threads = [threading.Thread(target=train, args=(seed, together)) for seed in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps([alone, together]))
        """,
    )
    alone, together = found
    assert alone == together
    assert len(set(alone.values())) == 2


def test_a_model_is_loaded_and_trained_from(checkout: Checkout) -> None:
    printed, found = python(
        checkout,
        """
        import numpy
        first = harness.run_experiment(Cell(**small), quiet=True)
        torch.manual_seed(5)
        expected = torch.rand(1).item()
        torch.manual_seed(5)
        models = [
            harness.load_model(run)
            for run in (first, first.run_id[:8], "last", harness.runs().iloc[0])
        ]
        same = torch.rand(1).item() == expected
        states = [m.state_dict() for m in models]
        equal = all(torch.equal(s[n], states[0][n]) for s in states for n in s)
        fitting = harness.run_experiment(Cell(seed=1, **small), start_from=first.run_id[:8])
        other = harness.run_experiment(Cell(width=8, **small), start_from=first.run_id)
        try:
            class Cell(Experiment):
                def network(self):
                    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
                width: int = 16
            harness.load_model(first)
        except Exception as error:
            refused = str(error)
        print(json.dumps({
            "same": same, "equal": equal, "training": any(m.training for m in models),
            "ids": [first.run_id, fitting.run_id, other.run_id],
            "losses": [
                fitting.epochs[0].metrics["train/loss"], first.epochs[-1].metrics["test/loss"]
            ],
            "refused": refused,
        }))
        """,
    )
    assert found["same"], "the generators of the notebook stay as they are"
    assert found["equal"]
    assert not found["training"]
    after, before = found["losses"]
    assert after < before + 0.1, "it goes on where the other training ended"
    first, fitting, other = found["ids"]
    assert f"starting from 4 tensors of {first[:8]}" in printed
    assert f"starting from 1 tensor of {first[:8]}" in printed
    assert "  starts anew: 1.weight (16x784 there, 8x784 here)" in printed
    assert found["refused"].startswith(f"load_model: the weights of {first[:8]} do not fit")
    reader = DatabaseReader(checkout.store)
    assert reader.run(fitting).parameters["start_from"] == first[:8]
    assert reader.run(other).settings["start_from"] == first


def test_a_run_that_started_from_another_is_verified_and_resumed_with_its_weights(
    checkout: Checkout,
) -> None:
    digits = ("--dataset", "digits", "--threads", "1", "--no-figures")
    first = checkout.run("softmax_regression", *digits, "--num-epochs", "1")
    started = checkout.run(
        "softmax_regression", *digits, "--num-epochs", "2", "--start-from", first.run_id[:8]
    )
    assert started.status == 0, started.errors
    assert started.output.startswith(f"starting from 2 tensors of {first.run_id[:8]}\n")
    verified = checkout.command("harness.verify", started.run_id)
    assert verified.status == 0, verified.output
    refused = checkout.run("lenet", *digits, "--start-from", first.run_id)
    assert refused.status == 2
    assert "no layer of" in refused.errors
    compared = checkout.command("harness.compare", "--experiment", "softmax_regression")
    assert "start_from" in compared.output
