"""The comparison: rows over seeds, differences with their uncertainty, tables, files, curves."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from conftest import QUICK, Checkout, Recorded, once
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

import harness
from harness import compare
from harness.analysis import table
from harness.analysis.comparison import comparisons
from harness.analysis.curves import curves
from harness.analysis.differences import Difference, differences
from harness.analysis.query import Run, refuse_mixed_data
from harness.analysis.rows import Row, ordered, rows
from harness.base.errors import BadRequest
from harness.base.statistics import Summary
from harness.cli.compare_flags import CompareSettings
from harness.figures import style
from harness.figures.comparison_figures import draw_comparison

SOFTMAX = ("softmax_regression", *QUICK, "--no-figures", "--quiet")


def _work(checkout: Checkout) -> None:
    """A session of work: two configurations with six seeds each, and a study."""
    for arguments in ((*SOFTMAX, "--repeats", "6"), (*SOFTMAX, "--repeats", "6", "--lr", "1.0")):
        assert checkout.run(*arguments).status == 0
    # With defaults that learn next to nothing, something else is the best.
    study = ("lr_search", *QUICK, "--lr", "0.001", "--n-trials", "3", "--confirm-seeds", "2")
    assert checkout.command("harness.study", *study, "--workers", "1", "--quiet").status == 0


@pytest.fixture(scope="session")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A checkout after the session of work, which ends with a run on other images."""
    last = (*SOFTMAX, "--validation-size", "100")
    return once(tmp_path_factory, "compared", last, prepare=_work)


@pytest.fixture
def store(worked: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Checkout:
    checkout, _ = worked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout.store}")
    monkeypatch.chdir(tmp_path)
    return checkout


def groups() -> list[str]:
    """Ids of the groups: of the learning rate 0.1, then of 1.0."""
    frame = harness.runs("softmax_regression")
    return list(frame[frame["kind"] == "group"].sort_values("start_time")["run_id"])


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    assert compare.main(arguments) == 0
    return capsys.readouterr().out


def lines(output: str) -> list[list[str]]:
    """The cells of the table that was printed, the header's last line first."""
    body = output.split("\n\n")[1].splitlines()
    start = next(i for i, line in enumerate(body) if line.startswith("run "))
    return [re.split(r"  +", line) for line in body[start:]]


ON_TEST_IMAGES = ("--filter", "params.validation_size = '0'")


# ---- rows ----

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int, seed: int | None = 0, accuracy: float | None = 0.9, **others: Any) -> Run:
    """A run as `records` gives it; a higher number is a later one."""
    return {
        "run_id": f"{number:032x}",
        "name": f"baseline lr=0.1 seed={seed}",
        "kind": "run",
        "experiment": "baseline",
        "mlflow_experiment": "baseline",
        "parent": None,
        "outcome": "completed",
        "seed": seed,
        "dataset": "digits",
        "device": "cpu",
        "device_name": "a processor",
        "threads": 1,
        "git_commit": "c0ffee",
        "start_time": BEGINNING + timedelta(seconds=number),
        "seconds": 1.0 + number,
        "epochs": 2,
        "params.lr": 0.1,
        "params.seed": str(seed),
        "metrics.test/accuracy": accuracy,
        "metrics.test/loss": None if accuracy is None else 1 - accuracy,
        "best.test/accuracy": accuracy,
        "best.test/loss": None if accuracy is None else 1 - accuracy,
        "data.training": "a" * 64,
        "data.validation": None,
        "data.test": "b" * 64,
        "tags.harness.experiment_sha256": "f" * 64,
        **others,
    }


def test_runs_that_differ_by_seed_alone_are_one_row() -> None:
    (row,) = rows([run(3, 2, 0.92), run(2, 1, 0.90), run(1, 0, 0.91)])
    assert (row.n, row.record["seeds"], row.label) == (3, "0 1 2", "baseline lr=0.1")
    summary = row.summary("test/accuracy")
    assert summary
    assert [summary.mean, summary.std] == pytest.approx([0.91, 0.01])
    assert [summary.low, summary.high] == pytest.approx([0.8851586, 0.9348414])
    assert row.record["std.test/accuracy"] == pytest.approx(0.01)
    assert row.record["seconds"] == 3.0
    assert row.short_id == "00000000"


@pytest.mark.parametrize(
    "other",
    [
        {"params.lr": 0.2},
        {"experiment": "lenet"},
        {"device": "cuda"},
        {"threads": 2},
        {"data.training": "c" * 64},
        {"tags.harness.experiment_sha256": "e" * 64},
        {"outcome": "interrupted"},
        {"outcome": "running"},
        {"kind": "trial"},
    ],
)
def test_runs_that_differ_otherwise_are_rows_of_their_own(other: dict[str, Any]) -> None:
    assert [row.n for row in rows([run(3, 2, **other), run(2, 1), run(1, 0)])] == [1, 2]


def test_a_repeated_seed_counts_once_and_the_latest_run_of_it() -> None:
    found = rows([run(4, 1, 0.5), run(3, 1, 0.6), run(2, 0, 0.7), run(1, 1, 0.8)])
    (row,) = found
    assert row.by_seed("test/accuracy") == {0: 0.7, 1: 0.5}
    assert [repeat["run_id"][-1] for repeat in row.repeats] == ["3", "1"]
    assert row.holds({f"{1:032x}"})
    assert not row.holds({f"{5:032x}"})


def test_a_mean_over_runs_of_which_one_has_no_value_is_none() -> None:
    (row,) = rows([run(2, 1, None, outcome="diverged"), run(1, 0, 0.5)])
    assert row.n == 2
    assert row.record["metrics.test/accuracy"] is None
    assert row.record["outcome"] == "1 completed, 1 diverged"
    (cell,) = table.usual_columns([row], [row.record])[-1].cells
    assert cell == "1 completed, 1 diverged"


def test_a_row_is_called_by_its_group_or_its_latest_run() -> None:
    (row,) = rows([run(2, 1, parent="9" * 32), run(1, 0, parent="9" * 32)])
    assert row.short_id == "9" * 8
    (row,) = rows([run(2, 1, parent="9" * 32, run_id="8" * 32), run(1, 0)])
    assert row.short_id == "8" * 8


@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), min_size=1, max_size=8), st.booleans())
def test_the_best_comes_first_and_what_has_no_value_last(
    values: list[float | None], reverse: bool
) -> None:
    found = rows([run(i, i, value, **{"params.lr": float(i)}) for i, value in enumerate(values)])
    for column, descending in ((None, True), ("metrics.test/loss", False)):
        name = column or "metrics.test/accuracy"
        ranked = [row.record[name] for row in ordered(found, column, reverse)]
        known = [value for value in ranked if value is not None]
        assert known == sorted(known, reverse=descending != reverse)
        assert ranked[: len(known)] == known


def test_different_images_are_told_apart() -> None:
    nowhere: dict[str, Any] = {"dataset": None, "data.test": None}
    others: dict[str, Any] = {"data.test": "d" * 64}
    refuse_mixed_data([run(1), run(2, **nowhere)])
    with pytest.raises(BadRequest) as raised:
        refuse_mixed_data([run(1), run(2), run(3, **others)])
    assert str(raised.value).splitlines()[1:3] == [
        "  digits, test images (SHA-256 aaaaaaaa, bbbbbbbb): 2 runs",
        "  digits, test images (SHA-256 aaaaaaaa, dddddddd): 1 run",
    ]


# ---- differences ----


def pair(differences_by_seed: Sequence[float]) -> tuple[Row, Row]:
    reference = [run(i, i, 0.5) for i in range(len(differences_by_seed))]
    other = [
        run(100 + i, i, 0.5 + d, **{"params.lr": 0.2}) for i, d in enumerate(differences_by_seed)
    ]
    first, second = rows([*reference, *other])
    return first, second


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.125] * 6, "better"),
        ([-0.125] * 6, "worse"),
        ([0.125, -0.125] * 3, "cannot be told apart"),
        ([0.125] * 5, "n = 5 is too small"),
        ([0.125], "n = 1 is too small"),
    ],
)
def test_the_verdict_says_what_the_seeds_can_tell(values: list[float], verdict: str) -> None:
    reference, other = pair(values)
    none, difference = differences([reference, other], reference)
    assert none is None
    assert difference
    assert difference.verdict == verdict
    assert difference.record()["pairs"] == len(values)
    assert (difference.record()["difference.low"] is None) == (len(values) == 1)


def test_only_shared_seeds_and_equal_images_are_compared() -> None:
    mine = [run(i, i, 0.5) for i in range(4)]
    theirs = [run(9 + i, i, 0.6, **{"params.lr": 0.2}) for i in (2, 3, 4)]
    other_seed = run(30, 7, 0.6, **{"params.lr": 0.3})
    other_images = run(31, 0, 0.6, **{"params.lr": 0.4, "dataset": "mnist"})
    found = rows([*mine, *theirs, other_seed, other_images])
    compared = differences(found, found[0])
    assert [d and d.record()["pairs"] for d in compared] == [None, 2, 0, 0]
    assert [d and d.verdict for d in compared[2:]] == ["no shared seeds"] * 2


def test_a_lower_loss_is_better() -> None:
    summary = Summary(6, -0.5, 0.1, -0.6, -0.4)
    assert Difference("test/loss", summary, 0.01).verdict == "better"
    assert Difference("test/accuracy", summary, 0.01).verdict == "worse"


# ---- the table ----


def test_the_table_shows_what_differs_and_what_came_out(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(capsys, "--experiment", "softmax_regression", *ON_TEST_IMAGES)
    assert output.startswith("softmax_regression: 12 runs in 2 rows; digits, test images; ")
    assert "1 thread; sorted by test/accuracy" in output.splitlines()[0]
    header, *body = lines(output)
    assert header[:5] == ["run", "n", "lr", "accuracy", "±"]
    # Nothing that all have in common but how they ended and on what.
    assert {"seed", "batch_size", "seeds"}.isdisjoint(header)
    assert header[-3:] == ["seconds", "device", "outcome"]
    frame = harness.runs("softmax_regression", filter=ON_TEST_IMAGES[1])
    frame = frame[frame["kind"] == "run"]
    means = frame.groupby("params.lr")["metrics.test/accuracy"].agg(["mean", "std"])
    ranked = means.sort_values("mean", ascending=False)
    for cells, (lr, (mean, std)) in zip(body, ranked.iterrows(), strict=True):
        half = stats.t.ppf(0.975, 5) * std / 6**0.5
        assert cells[1:6] == [
            *("6", f"{lr:g}", f"{mean:.4f}", f"{std:.4f}"),
            f"{mean - half:.4f} to {mean + half:.4f}",
        ]
        assert cells[-2:] == ["cpu", "completed"]
    assert {cells[0] for cells in body} == {group[:8] for group in groups()}


def test_a_reference_adds_the_paired_difference(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, fast = groups()
    by_group = told(capsys, fast[:10], slow, "--against", slow[:10])
    header, *body = lines(by_group)
    start = header.index("ence")
    cells = {row[2]: row[start:] for row in body if len(row) > start}
    frame = harness.runs("softmax_regression")
    values = {
        parent: frame[frame["parent"] == parent].sort_values("seed")["metrics.test/accuracy"]
        for parent in (slow, fast)
    }
    paired = values[fast].to_numpy() - values[slow].to_numpy()
    interval = stats.t.interval(0.95, 5, paired.mean(), stats.sem(paired))
    assert cells["1"][:3] == [
        f"{paired.mean():+.4f}",
        f"{interval[0]:+.4f} to {interval[1]:+.4f}",
        "6",
    ]
    test = stats.permutation_test(
        (paired,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True
    )
    assert float(cells["1"][3]) == pytest.approx(test.pvalue, abs=1e-4)
    assert "exact sign-flip permutation test" in by_group
    # By one of its runs, also where that is not among those that were asked for.
    member = frame[frame["parent"] == slow]["run_id"].iloc[-1]
    assert "reference" in told(capsys, fast, "--against", member)
    # And by a name; with too few seeds, that is said.
    output = told(capsys, "--study", "lr_search", "--against", "defaults")
    trials, _, confirmations = output.partition("confirmations")
    assert "verdict" not in trials
    assert "n = 2 is too small" in confirmations
    assert "fewer than 6 shared seeds" in confirmations


def test_a_study_is_its_trials_and_its_confirmations(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(capsys, "--study", "lr_search")
    trials, _, confirmations = output.partition("lr_search, confirmations on the test images: ")
    header, *body = lines(trials)
    assert header[:2] == ["run", "trial"]
    assert sorted(row[1] for row in body) == ["0", "1", "2"]
    assert "lr_search, trials: 3 runs; digits, validation images" in trials
    header, *body = lines(confirmations)
    assert header[:3] == ["run", "name", "n"]
    assert [row[1:3] for row in body] == [["best", "2"], ["defaults", "2"]]
    (study,) = harness.runs(study="lr_search", filter="tags.harness.kind = 'study'")["run_id"]
    assert told(capsys, study[:12]).count("trials: 3 runs") == 1


def test_mixed_data_is_compared_only_when_asked_for(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest) as raised:
        compare.main([])
    assert "2 different sets of images" in str(raised.value)
    assert "digits, validation images: 1 run\n" in str(raised.value)
    assert "--mixed-data" in str(raised.value)
    output = told(capsys, "--mixed-data", "--experiment", "softmax_regression")
    assert "digits, validation images" in output
    assert "their numbers are not comparable" in output
    assert len(lines(output)) == 4


def test_columns_sort_and_limit_are_as_asked_for(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--experiment", "softmax_regression", *ON_TEST_IMAGES)
    shown = ("--columns", "lr, train/loss,best.test/accuracy,git_commit,")
    header, *body = lines(told(capsys, *asked, *shown, "--sort", "lr"))
    assert header == ["run", "lr", "train/loss", "accuracy", "git_commit"]
    assert [row[1] for row in body] == ["0.1", "1"]
    output = told(capsys, *asked, "--sort", "lr", "--reverse", "--limit", "1")
    assert [row[2] for row in lines(output)[1:]] == ["1"]
    assert "1 more row: raise --limit." in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "softmax_regresion"], "Did you mean softmax_regression"),
        (["--study", "lr_serch"], "Did you mean lr_search"),
        (["nonsense"], "no run 'nonsense' here"),
        (["--filter", "params.lr = '7'"], r"no such runs \(filter "),
        (["--filter", "params.lr ~"], "filter: "),
        (["--dataset", "minst"], "no such runs on 'minst'"),
        (["--study", "lr_search", "--columns", "lr,validation/accurcy"], "mean validation/acc"),
        (["--study", "lr_search", "--sort", "xyz"], "no column 'xyz'. --csv FILE"),
        (
            ["--study", "lr_search", "--against", "nonsense"],
            "against: there is neither a run nor a row 'nonsense'",
        ),
        (["--study", "lr_search", "--csv", "no/such/folder.csv"], "csv: no/such.*cannot be writt"),
        (["--study", "lr_search", "--json", "."], "json: .* cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(
    store: Checkout, arguments: list[str], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        compare.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--curves", "x.jpeg"], "does not end in .png"),
        (["--study", "lr_search", "--experiment", "baseline"], "not both"),
        (["--limit", "0"], "at least 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        compare.main(arguments)
    assert message in " ".join(str(raised.value).split())


def test_the_command_ends_with_its_status(worked: Recorded, checkout: Checkout) -> None:
    used, _ = worked
    ended = used.command("harness.compare", "--study", "lr_search")
    assert (ended.status, ended.errors) == (0, "")
    # In a pipe there is neither colour nor an end of the line.
    assert "\x1b" not in ended.output
    assert all("outcome" in block for block in ended.output.split("sorted by")[1:])
    refused = used.command("harness.compare", "nonsense")
    assert (refused.status, refused.output) == (2, "")
    assert refused.errors.startswith("error: run: there is no run 'nonsense' here.")
    empty = checkout.command("harness.compare")
    assert empty.status == 0
    assert empty.output.startswith("Nothing is recorded yet in sqlite:///")
    assert not checkout.store.exists()


def test_with_studies_alone_their_own_flag_is_offered(
    store: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.compare.main", compare.main)
    monkeypatch.setattr("harness.analysis.comparison.select", lambda settings: [])
    assert "compare --study lr_search" in told(capsys)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_a_wide_table_stays_readable_on_a_terminal(store: Checkout, width: int) -> None:
    settings = CompareSettings(study="lr_search")
    for comparison in comparisons(settings):
        columns = table.usual_columns(comparison.rows, comparison.records)
        kept, gone = table.narrowed(columns, width)
        console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
        table.show(kept, console)
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue().splitlines()
        assert max(map(len, shown)) <= width
        # No number is broken: every row has as many lines as every other, one.
        assert len(shown) == len(comparison.rows) + 1 + max(c.header.count("\n") for c in kept)
        assert kept[0].header == "run"
        assert len(kept) + len(gone) == len(columns)
        notes = " ".join(table.about_gone(gone))
        assert ("No room for" in notes) == any(not column.constant for column in gone)
        assert not gone or width < 120


# ---- files ----


def test_every_column_is_in_the_files(store: Checkout, tmp_path: Path) -> None:
    slow, fast = groups()
    files = ("--csv", "rows.csv", "--json", "rows.json")
    assert compare.main([slow, fast, "--against", slow, *files]) == 0
    written = list(csv.DictReader((tmp_path / "rows.csv").open()))
    objects = json.loads((tmp_path / "rows.json").read_text())
    assert len(written) == len(objects) == 2
    for row, entry in zip(written, objects, strict=True):
        assert list(row) == list(entry)
        assert row == {k: "" if v is None else str(v) for k, v in entry.items()}
        assert (entry["n"], entry["seeds"]) == (6, "0 1 2 3 4 5")
        assert len(entry["run_id"].split()) == 6
        assert entry["low.test/accuracy"] < entry["metrics.test/accuracy"]
        assert entry["start_time"].endswith("+00:00")
    by_lr = {entry["params.lr"]: entry for entry in objects}
    assert by_lr[0.1]["verdict"] == "reference"
    assert by_lr[0.1]["p"] is None
    assert 2**-5 <= by_lr[1.0]["p"] <= 1


def test_markdown_has_the_cells_of_the_table(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--experiment", "softmax_regression", *ON_TEST_IMAGES)
    plain = lines(told(capsys, *asked))
    marked = told(capsys, *asked, "--markdown").split("\n\n")[1].splitlines()
    rows_of_cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in marked]
    assert rows_of_cells[2:] == plain[1:]
    assert rows_of_cells[0][3] == "test/accuracy"
    column = table.Column("a\nb", ("x|y",))
    assert table.markdown([column]).splitlines() == ["| a b |", "| --- |", "| x\\|y |"]


# ---- curves ----


@pytest.mark.parametrize("name", ["curves.png", "curves.svg", "curves.pdf"])
def test_curves_are_drawn_into_a_file(store: Checkout, tmp_path: Path, name: str) -> None:
    asked = ["--experiment", "softmax_regression", *ON_TEST_IMAGES]
    assert compare.main([*asked, "--curves", name]) == 0
    content = (tmp_path / name).read_bytes()
    if name.endswith("svg"):
        assert b"<svg" in content
    elif name.endswith("pdf"):
        assert content.startswith(b"%PDF")
    else:
        pixels = matplotlib.image.imread(io.BytesIO(content))
        colours = {tuple(colour) for colour in (pixels[..., :3] * 255).round().reshape(-1, 3)}
        # A line for each row, each with its band.
        for colour in style.CURVE_COLOURS[:2]:
            exact = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
            band = tuple(round(0.2 * part + 0.8 * 255) for part in exact)
            assert exact in colours
            assert any(max(abs(a - b) for a, b in zip(band, c, strict=True)) <= 1 for c in colours)


def test_runs_without_any_epoch_have_no_curves(store: Checkout) -> None:
    with pytest.raises(BadRequest, match="curves: none of these runs"):
        draw_comparison(curves(rows([run(1, 0, None)]), ["x"]), "title", "", "png")
