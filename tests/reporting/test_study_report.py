"""The report of a study holds its answer and every trial: from plain data, without a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import HOSTILE
from report_page import Parsed, check_needs_nothing_else

from harness.base.trials import SearchedParameter, TrialRow, confirmed_metric
from harness.base.verdict import Verdict, verdict
from harness.figures.study_figures import draw_study
from harness.reporting.study_report import study_html
from harness.tracking.schema import StoredRun

DEFAULTS = {"lr": 0.1, "batch_size": 256}

FIELDS = {
    **{"dataset": "digits", "num_epochs": 3, "validation_size": 239, "split_seed": 0, "seed": 0},
    "stratify": False,
    **DEFAULTS,
}

PARAMETERS = [
    SearchedParameter("lr", low=1e-3, high=1.0, log=True),
    SearchedParameter("batch_size", choices=(64, 256)),
]

TAGS = {
    **{"git_commit": "a" * 40, "git_state": "dirty", "command": "python -m harness.study some"},
    **{"data.training_sha256": "d" * 64, "data.training_size": "1198"},
    **{"data.test_sha256": "e" * 64, "data.test_size": "360"},
}


def stored_run() -> StoredRun:
    tags = {f"harness.{name}": value for name, value in TAGS.items()}
    return StoredRun("0" * 32, "some", "some", 0, None, tags, {"dataset": "digits"})


def trials(*outcomes: tuple[str, float | None], **changes: Any) -> list[TrialRow]:
    return [
        TrialRow(
            number,
            outcome,
            () if value is None else (value,),
            dict(DEFAULTS) if number == 0 else {"lr": 0.01 * number, "batch_size": 64},
            {} if value is None else {1: value},
            seconds=2.0,
            training_seconds=1.5,
            reason="broken" if outcome == "failed" else None,
            owner="one",
            worker=0,
            **changes,
        )
        for number, (outcome, value) in enumerate(outcomes)
    ]


def answer_of(
    rows: Sequence[TrialRow], confirmed: dict[str, list[float]], **changes: Any
) -> dict[str, Any]:
    goal = {"metric": "validation/accuracy", "direction": "maximize"}
    (goal,) = changes.get("objectives", [goal])
    pick = max if goal["direction"] == "maximize" else min
    best = pick((row for row in rows if row.outcome == "completed"), key=lambda row: row.values)
    outcomes = [row.outcome for row in rows]
    kinds = ("completed", "pruned", "diverged", "failed", "running", "waiting")
    return {
        "study": "some",
        "objectives": [goal],
        "declaration": {
            "experiment": "baseline",
            "fields": FIELDS,
            "space": {"lr": "0.001 to 1.0, logarithmic", "batch_size": "one of 64, 256"},
        },
        "defaults": DEFAULTS,
        "sampler": "random",
        "sampler_seed": 0,
        "pruner": "none",
        "counts": {kind: outcomes.count(kind) for kind in kinds},
        "chosen": [{"trial": best.number, "parameters": best.params, "values": best.values}],
        "importances": {},
        "warnings": [],
        "n_trials": len(rows),
        "device": "cpu",
        "command": None,
        "confirmed": {
            name: {
                "fields": FIELDS,
                "values": {
                    confirmed_metric(goal["metric"]): {
                        str(seed): value for seed, value in enumerate(values)
                    }
                },
                "seconds": 60.0,
            }
            for name, values in confirmed.items()
        },
        "difference": verdict_of(**confirmed).record() if len(confirmed) > 1 else {},
        "verdict": "The verdict.",
        **changes,
    }


def verdict_of(best: list[float], defaults: list[float]) -> Verdict:
    return verdict(best, defaults, best="max", metric="test/accuracy", unit="points")


def report(rows: Sequence[TrialRow], name: str = "some", **confirmed: list[float]) -> str:
    return page_of(rows, answer_of(rows, confirmed, study=name), confirmed)


def page_of(
    rows: Sequence[TrialRow], answer: dict[str, Any], confirmed: dict[str, list[float]]
) -> str:
    figures = draw_study(
        answer["study"],
        rows,
        PARAMETERS,
        DEFAULTS,
        {
            name: {metric: list(values.values()) for metric, values in found["values"].items()}
            for name, found in answer["confirmed"].items()
        },
        {goal["metric"]: goal["direction"] for goal in answer["objectives"]},
        [trial["trial"] for trial in answer["chosen"]],
        importances=answer["importances"],
    )
    confirmations = [stored_run() for _ in confirmed]
    return study_html(answer, rows, stored_run(), confirmations, figures)


def test_a_study_without_confirmation_says_so() -> None:
    text = report(trials(("completed", 0.5)))
    check_needs_nothing_else(text)
    page = Parsed(text)
    assert "has not been confirmed on the test set" in page.text
    assert "Test accuracy, best" not in page.text
    assert "The verdict." not in page.text
    assert "! open" in page.text  # uncommitted changes, one seed
    assert re.search(r"git apply ../run-\w{8}/changes.diff\n", page.commands[0])


def test_every_outcome_is_counted_and_every_trial_is_in_the_table() -> None:
    rows = trials(
        *[("completed", 0.5), ("pruned", 0.2), ("diverged", 0.0)],
        *[("failed", None), ("completed", 0.75)],
    )
    page = Parsed(report(rows, best=[0.7], defaults=[0.6]))
    assert "2 completed, 1 pruned, 1 diverged, 1 failed" in page.text
    assert "+0.1000 n = 1" in page.text
    assert "The verdict." in page.text
    head, body = page.table("trial")
    assert head == [
        *("trial", "outcome", "validation accuracy", "lr", "batch_size"),
        *("epochs", "seconds", "training seconds", "note"),
    ]
    assert [row[1] for row in body] == ["completed", "pruned", "diverged", "failed", "completed"]
    assert body[3] == ["3", "failed", "—", "0.03", "64", "0", "2.0", "1.5", "broken"]
    # Of the four sampled trials, three have a value: 0, 0.2 and 0.75.
    head, body = page.table("standard deviation")
    assert head == ["trials", "mean", "standard deviation"]
    assert body[0][:2] == ["1", f"{(0 + 0.2 + 0.75) / 3:.4f}"]
    assert body[1][:2] == ["2", f"{(0 * 1 + 0.2 * 3 + 0.75 * 5) / 9:.4f}"]
    assert body[2][0] == "3"
    assert "The sampler was random, so they were independent." in page.text


def test_confirmations_are_summarized_with_their_difference() -> None:
    rows = trials(("completed", 0.5), ("completed", 0.6))
    page = Parsed(report(rows, best=[0.7, 0.72], defaults=[0.6, 0.64]))
    head, body = page.table("configuration")
    cells = [dict(zip(head, row, strict=True)) for row in body]
    assert [row["configuration"] for row in cells] == ["best", "defaults", "difference"]
    assert [row["mean"] for row in cells] == ["0.7100", "0.6200", "0.0900"]
    assert [row["n seeds"] for row in cells] == ["2", "2", "2"]
    items = {name: record for _, name, record in page.tables[-1]}
    assert items["Number of runs"].endswith("4 confirmations (2 configurations, 2 seeds each)")
    assert items["Compute time"].startswith("2 min: trials 4.0 s")
    assert items["Data"].splitlines() == [
        f"{runs} on digits, {use} examples, SHA-256 {digest * 64}"
        for runs in ("trials", "confirmation")
        for use, digest in (("training: 1,198", "d"), ("test: 360", "e"))
    ]


def test_a_repeated_trial_says_which_one_it_repeats() -> None:
    rows = [
        *trials(("completed", 0.5), ("interrupted", None)),
        TrialRow(2, "completed", (0.6,), {"lr": 0.2, "batch_size": 64}, {1: 0.6}, retry_of=1),
    ]
    page = Parsed(report(rows))
    _, body = page.table("trial")
    assert body[2][-1] == "repeats trial 1"
    assert "2 trials (2 completed; 1 more interrupted and repeated)" in page.text


def test_an_answer_from_before_the_last_trials_says_so() -> None:
    before = trials(("completed", 0.5))
    rows = trials(("completed", 0.5), ("completed", 0.6), ("running", None))
    page = Parsed(page_of(rows, answer_of(before, {}), {}))
    assert "2 trials have finished by now, but the answer is from after 1" in page.text


def test_the_objective_and_its_direction_are_data() -> None:
    rows = trials(("completed", 0.5), ("completed", 0.25), ("completed", 0.75))
    confirmed = {"best": [0.2], "defaults": [0.3]}
    goals = [{"metric": "validation/loss", "direction": "minimize"}]
    text = page_of(rows, answer_of(rows, confirmed, objectives=goals), confirmed)
    assert "accuracy" not in text
    page = Parsed(text)
    assert "Best validation loss0.2500 n = 1 seed, selected as the lowest" in page.text
    assert "Test loss, best" in page.text
    assert page.table("validation loss")[1][1][:3] == ["1", "completed", "0.2500"]


def test_important_parameters_are_ranked() -> None:
    rows = trials(("completed", 0.5), ("completed", 0.6))
    answer = answer_of(rows, {}, importances={"lr": 0.75, "batch_size": 0.25})
    text = page_of(rows, answer, {})
    assert Parsed(text).table("importance")[1] == [["lr", "0.75"], ["batch_size", "0.25"]]
    assert "Bars of relative importance by PED-ANOVA: lr 0.75, batch_size 0.25." in text
    assert "Importances need 20 completed trials" in Parsed(report(rows)).text


@pytest.mark.parametrize(("workers", "words"), [(1, "1 process trained"), (2, "2 processes")])
def test_the_workers_are_counted(workers: int, words: str) -> None:
    rows = [
        TrialRow(
            number, "completed", (0.5,), DEFAULTS, {1: 0.5}, owner="one", worker=number % workers
        )
        for number in range(4)
    ]
    page = Parsed(report(rows))
    (line,) = (line for line in page.tables[-1] if line[1] == "Workers")
    assert line[0] == ("✓ yes" if workers == 1 else "! open")
    assert line[2].startswith(words)


def test_the_name_of_a_study_is_shown_and_never_obeyed() -> None:
    text = report(trials(("completed", 0.5)), HOSTILE)
    check_needs_nothing_else(text)
    assert HOSTILE not in text
    assert HOSTILE in Parsed(text).text
