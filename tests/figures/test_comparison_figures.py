"""The curves of a comparison show each configuration's mean and spread, and can be told apart."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import matplotlib.image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.base.errors import BadRequest
from harness.figures import style
from harness.figures.comparison_figures import MOST_CURVES, Curve, draw_comparison


def curve(label: str, n: int = 1, *, scale: float = 1.0, part: str = "test") -> Curve:
    std = 0.1 if n > 1 else None
    return Curve(
        label,
        n,
        {
            f"{part}/accuracy": [(epoch, 0.2 * epoch * scale, std) for epoch in (1, 2, 3)],
            f"{part}/loss": [(epoch, scale / epoch, std) for epoch in (1, 2, 3)],
        },
    )


def svg_of(*curves: Curve, subtitle: str = "digits, test examples") -> str:
    """The picture as SVG that keeps its words as text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.STYLE, "svg.fonttype", "none")
        return draw_comparison(curves, "baseline", subtitle, "svg").decode()


def words_of(svg: str) -> list[str]:
    return [part.partition("</text>")[0].rpartition(">")[2] for part in svg.split("<text")[1:]]


def test_the_words_say_what_is_shown() -> None:
    words = words_of(svg_of(curve("lr=0.1", 3), curve("lr=0.2")))
    assert {"baseline", "digits, test examples", "lr=0.1 (n = 3)", "lr=0.2 (n = 1)"} <= set(words)
    assert "mean over seeds, band: ± 1 standard deviation" in words
    assert {"test/accuracy", "test/loss"} <= set(words)
    assert words.count("epoch") == 2
    assert "n = 1 seed each" in words_of(svg_of(curve("lr=0.2")))


def test_a_panel_for_each_quantity_whatever_it_is_called() -> None:
    other = Curve("x", 1, {"validation/f1": [(1, 0.5, None)], "grad_norm": [(1, 2.0, None)]})
    words = words_of(svg_of(other))
    assert {"validation/f1", "grad_norm"} <= set(words)
    assert "test/accuracy" not in words
    mixed = words_of(svg_of(curve("a"), curve("b", part="validation")))
    assert "test/accuracy and validation/accuracy" in mixed


def test_losses_of_very_different_size_go_on_a_logarithmic_axis_with_plain_numbers() -> None:
    words = words_of(svg_of(curve("a"), curve("b", scale=1000.0)))
    assert {"1", "10", "100", "1000"} <= set(words)
    assert not any("mathdefault" in word for word in words)
    assert "100" not in words_of(svg_of(curve("a"), curve("b", scale=2.0)))


def test_as_many_curves_as_can_be_told_apart() -> None:
    words = words_of(svg_of(*(curve(f"lr={number}") for number in range(MOST_CURVES))))
    assert {f"lr={number} (n = 1)" for number in range(MOST_CURVES)} <= set(words)


def test_a_long_label_is_cut() -> None:
    (label,) = (word for word in words_of(svg_of(curve("W" * 300))) if word.startswith("W"))
    assert label.endswith("W… (n = 1)")


@pytest.mark.parametrize("letter", ["W", "i", "@", "m "])
def test_two_long_labels_fit_side_by_side(letter: str) -> None:
    entry = curve(letter * 300, 5).entry
    drawn = FigureCanvasAgg(Figure((style.WIDE, 3), dpi=style.DPI))
    labels = [entry, entry]
    with style.styled():
        legend = drawn.figure.legend([Line2D([], []), Line2D([], [])], labels, ncols=2)
        drawn.draw()  # type: ignore[no-untyped-call]
        extent = legend.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= style.DPI * style.WIDE


def test_a_picture_shows_control_characters_as_escapes() -> None:
    svg = draw_comparison([curve("a\x1b\nb\u202e")], "\x1b", "", "svg")
    ElementTree.fromstring(svg)  # it would be no XML
    assert r"a\x1b\nb\u202e (n = 1)" in words_of(svg_of(curve("a\x1b\nb\u202e")))


def test_lines_and_bands_have_the_colours_of_the_palette() -> None:
    content = draw_comparison([curve("a", 3), curve("b", 3, scale=0.5)], "title", "", "png")
    pixels = matplotlib.image.imread(io.BytesIO(content))
    colours = {tuple(colour) for colour in (pixels[..., :3] * 255).round().reshape(-1, 3)}
    for colour in style.CURVE_COLOURS[:2]:
        exact = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        band = tuple(round(0.2 * part + 0.8 * 255) for part in exact)
        assert exact in colours
        assert any(max(abs(a - b) for a, b in zip(band, c, strict=True)) <= 1 for c in colours)


def test_curves_without_points_cannot_be_drawn() -> None:
    with pytest.raises(BadRequest, match="curves: none of these runs was evaluated"):
        draw_comparison([Curve("a", 1, {"test/loss": []})], "title", "", "png")
