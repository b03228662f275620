"""The comparison: rows over seeds, differences with their uncertainty, tables, files, curves."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import matplotlib.image
import pytest
from conftest import QUICK, Checkout, Recorded, once
from rich.console import Console
from scipy import stats

import harness
from harness import compare
from harness.analysis import table
from harness.analysis.comparison import comparisons
from harness.analysis.query import Query
from harness.base.errors import BadRequest
from harness.figures import style
from harness.tracking.reader import open_reader

SOFTMAX = ("softmax_regression", *QUICK, "--no-figures", "--quiet")


def _work(checkout: Checkout) -> None:
    """A session of work: two configurations with six seeds each, and a study."""
    for arguments in ((*SOFTMAX, "--repeats", "6"), (*SOFTMAX, "--repeats", "6", "--lr", "1.0")):
        assert checkout.run(*arguments).status == 0
    # With defaults that learn next to nothing, something else is the best.
    study = ("lr_search", *QUICK, "--lr", "0.001", "--n-trials", "3", "--confirm-seeds", "2")
    batches = ("--batch-size", "16")
    study_ended = checkout.command("harness.study", *study, *batches, "--workers", "1", "--quiet")
    assert study_ended.status == 0


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


# ---- the table ----


def test_the_table_shows_what_differs_and_what_came_out(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(capsys, "--experiment", "softmax_regression", *ON_TEST_IMAGES)
    assert output.startswith("softmax_regression: 12 runs in 2 rows; digits, test examples; ")
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


@pytest.mark.parametrize("negated", [False, True])
def test_a_filter_on_results_takes_all_seeds_of_a_row_or_none(
    store: Checkout, capsys: pytest.CaptureFixture[str], negated: bool
) -> None:
    slow, fast = groups()
    frame = harness.runs("softmax_regression")
    values = frame[frame["parent"] == fast]["metrics.test/accuracy"].sort_values()
    assert values.iloc[0] < values.iloc[-1], "seeds differ"
    limit = (values.iloc[0] + values.iloc[-1]) / 2
    sign = "<" if negated else ">"
    condition = f'metrics."test/accuracy" {sign} {limit}'
    output = told(capsys, "--experiment", "softmax_regression", "--filter", condition)
    header, *body = lines(output.split("The filter")[0])
    cells = {row[0]: row for row in body if row[0] in (slow[:8], fast[:8])}
    assert cells[fast[:8]][1] == "6"
    assert cells[fast[:8]][header.index("accuracy")] == f"{values.mean():.4f}"
    assert re.search(rf"The filter does not hold for \d runs? in .*{fast[:8]}", output)
    # A filter on what was tried selects nothing by its result.
    assert "The filter" not in told(capsys, "--filter", "params.seed = '3'", "--mixed-data")


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
    low, high = map(float, cells["1"][1].split(" to "))
    assert cells["1"][0] == f"{paired.mean():+.4f}"
    assert (low + high) / 2 == pytest.approx(paired.mean(), abs=1e-4)
    # Wider than over the seeds alone: it holds other test examples too.
    assert high - low > 2 * 1.9 * stats.sem(paired)
    assert cells["1"][2] == "6"
    assert (float(cells["1"][3]) <= 0.05) == (low > 0 or high < 0)
    words = " ".join(by_group.split())
    assert f"by {100 * paired.mean():+.2f} points of test accuracy (95% interval" in words
    assert "over seeds and test examples, n = 6 paired seeds" in words
    assert "The split into training and test examples is held fixed." in words
    # By one of its runs, also where that is not among those that were asked for.
    member = frame[frame["parent"] == slow]["run_id"].iloc[-1]
    assert "reference" in told(capsys, fast, "--against", member)
    # And by a name; with too few seeds, that is said.
    output = told(capsys, "--study", "lr_search", "--against", "defaults")
    trials, _, confirmations = output.partition("confirmations")
    assert "verdict" not in trials
    assert "no verdict" in confirmations
    assert "With fewer than 3 shared seeds there is no verdict" in confirmations


def test_a_study_is_its_trials_and_its_confirmations(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(capsys, "--study", "lr_search")
    trials, _, confirmations = output.partition("lr_search, confirmations on the test examples: ")
    header, *body = lines(trials)
    assert header[:2] == ["run", "trial"]
    assert sorted(row[1] for row in body) == ["0", "1", "2"]
    assert "lr_search, trials: 3 runs; digits, validation examples" in trials
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
    assert "2 different sets of examples" in str(raised.value)
    assert "digits, validation examples: 1 run\n" in str(raised.value)
    assert "--mixed-data" in str(raised.value)
    output = told(capsys, "--mixed-data", "--experiment", "softmax_regression")
    assert "digits, validation examples" in output
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
    assert "showing 1 of 2 rows: raise --limit." in output


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
        (["--study", "lr_search", "--json", "."], r"json: \. cannot be written: it is a folder"),
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
    monkeypatch.setattr("harness.analysis.comparison.select", lambda query, reader: [])
    assert "compare --study lr_search" in told(capsys)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_a_wide_table_stays_readable_on_a_terminal(store: Checkout, width: int) -> None:
    for comparison in comparisons(Query(study="lr_search"), open_reader()):
        columns = comparison.columns([])
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
    assert 0 < by_lr[1.0]["p"] <= 1


def test_markdown_has_the_cells_of_the_table(
    store: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--experiment", "softmax_regression", *ON_TEST_IMAGES)
    plain = lines(told(capsys, *asked))
    marked = told(capsys, *asked, "--markdown").split("\n\n")[1].splitlines()
    rows_of_cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in marked]
    assert rows_of_cells[2:] == plain[1:]
    assert rows_of_cells[0][3] == "test/accuracy"


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
