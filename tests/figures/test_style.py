"""The style is ours alone: settings of the user change no figure, and drawing changes none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.figures import style

MATPLOTLIBRC = """\
text.usetex: True
axes.formatter.use_mathtext: True
font.size: 30
axes.facecolor: black
axes.prop_cycle: cycler("color", ["red"])
figure.autolayout: True
figure.dpi: 20
lines.linewidth: 9
savefig.bbox: tight
savefig.dpi: 20
svg.fonttype: none
xtick.direction: in
"""

PROGRAM = """if True:
    import hashlib
    import numpy as np
    from harness.base.inspection import Inspection, Mistakes, PredictedClasses
    from harness.base.trials import SearchedParameter, TrialRow
    from harness.figures import comparison_figures, run_figures, study_figures, style
    nothing = np.zeros(0, np.int64)
    labels = np.arange(10)
    mistakes = Mistakes(np.zeros((0, 28, 28), np.uint8), nothing, nothing, nothing, nothing)
    sure = np.ones(10, np.float32)
    predicted = PredictedClasses(tuple("0123456789"), labels, labels, sure, mistakes)
    found = Inspection("test", 10, predicted, None)
    history = [(1, {"train/loss": 1e9}), (2, {"train/loss": 1e12})]
    rows = [TrialRow(n, "completed", (n / 10,), {"lr": 10.0**-n}, {1: n / 10}) for n in range(4)]
    curve = comparison_figures.Curve("lr=1", 2, {"test/loss": [(1, 1e3, 0.1), (2, 0.1, 0.01)]})
    figures = [
        *run_figures.draw_run("run", "digits", history, found).values(),
        *study_figures.draw_study(
            "study", rows, [SearchedParameter("lr", log=True)], {"lr": 1.0},
            {"best": {"test/accuracy": [0.5, 0.6]}}, {"validation/accuracy": "maximize"}, [3],
            importances={"lr": 1.0},
        ).values(),
    ]
    files = [draw(figure) for figure in figures for draw in (style.png, style.svg)]
    files += [
        comparison_figures.draw_comparison([curve], "title", "images", kind)
        for kind in ("png", "svg", "pdf")
    ]
    print(*(hashlib.sha256(file).hexdigest() for file in files))
"""


@pytest.mark.processes
def test_a_matplotlibrc_of_the_user_changes_no_figure(tmp_path: Path) -> None:
    def drawn(settings: str) -> list[str]:
        path = tmp_path / "matplotlibrc"
        path.write_text(settings)
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=os.environ | {"MATPLOTLIBRC": str(path)},
            capture_output=True,
            text=True,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.split()

    usual = drawn("")
    assert len(usual) == 2 * (4 + 6) + 3
    assert drawn(MATPLOTLIBRC) == usual


def test_drawing_leaves_the_settings_of_the_user_alone() -> None:
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        with style.styled():
            assert matplotlib.rcParams["font.size"] == 10
            assert matplotlib.rcParams["axes.edgecolor"] == style.GREY
            assert not matplotlib.rcParams["text.usetex"]
        assert dict(matplotlib.rcParams) == before


def test_the_style_is_the_only_place_with_settings_of_matplotlib() -> None:
    users = [
        path.name
        for path in (ROOT / "harness").rglob("*.py")
        if any(word in path.read_text() for word in ("rcParams", "rc_context", "rcdefaults"))
    ]
    assert users == ["style.py"]


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.mark.parametrize("width", [style.NARROW, style.MEDIUM, style.WIDE])
def test_a_heading_is_cut_where_the_figure_ends(width: float) -> None:
    long = "W" * 400
    with style.styled():
        figure = style.headed_figure(width, 2.0, "Heading " + long, ["short", "line " + long])
        box = figure.get_tightbbox()
    heading, short, line = words_of(figure)
    assert short == "short"
    for text, start in ((heading, "Heading W"), (line, "line W")):
        assert text.startswith(start)
        assert text.endswith("W…")
    usual = style.headed_figure(width, 2.0, "Heading", ["any words " * 30])
    assert usual.get_tightbbox().x1 <= width
    assert box.y1 <= 2.0


def test_a_figure_gives_the_same_bytes_again() -> None:
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, second = (
            style.image_file(style.headed_figure(style.NARROW, 2.0, "$x$", ["line"]), kind)
            for _ in range(2)
        )
        assert first == second
        assert first.startswith(start)


def test_a_figure_that_fails_costs_no_other_one() -> None:
    def broken() -> Figure:
        raise RuntimeError("LaTeX is not here\nand much more")

    with pytest.warns(UserWarning, match=r"the figure bad could not be drawn: LaTeX is not here$"):
        figures = style.drawn({"bad": broken, "good": Figure})
    assert list(figures) == ["good"]
    unwritable = Figure((1e6, 1e6))  # larger than Matplotlib draws
    with pytest.warns(UserWarning, match="the figure worse could not be drawn"):
        assert list(style.png_files({"worse": unwritable, **figures})) == ["figures/good.png"]
