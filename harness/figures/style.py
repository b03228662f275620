"""The one style of all figures: palette, sizes, heading, and how a figure becomes a file.

Figures never touch pyplot, which keeps every figure until somebody closes it. Matplotlib is
imported inside the functions, because the recorder's process loads this long before it draws.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.base.formatting import harmless
from harness.base.privacy import mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, AMBER, SKY = "#CC79A7", "#E69F00", "#56B4E9"

DARK_VERMILLION = "#B34700"
"""Vermillion for words, dark enough for small letters on white."""

GREY = "#595959"
"""For axes, subtitles and whatever stands back."""

LIGHT_GREY = "#B0B0B0"
"""For frames."""

PALE_BLUE = "#8A93A8"
"""For zeros on the dark end of the sequential map."""

CURVE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, AMBER, SKY, "#000000", GREY)
"""Colours of curves that share one pair of axes, in this order."""

SEQUENTIAL_MAP = "cividis"
"""Colour map of values from low to high; it reads the same without colour vision."""

DIVERGING_MAP = "RdBu_r"
"""Colour map of values on both sides of zero, which is white."""

DPI = 160

NARROW, MEDIUM, WIDE = 5.0, 6.4, 9.0
"""Widths of figures in inches: of a run (read as thumbnails), of a study, of a comparison."""

MARGIN = 0.12
"""Inches kept free at the edges of a figure."""

LINE = 0.2
"""Inches from one line below a heading to the next."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "grid.color": "#DDDDDD",
    "image.interpolation": "nearest",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "harness",
    # A dollar sign in the name of a run or study is a dollar sign.
    "text.parse_math": False,
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
}
"""What differs from Matplotlib's defaults."""

METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Entries that each kind of file leaves out, so that the same figure gives the same bytes."""

_LETTER = 0.62
"""Mean width of a letter of DejaVu Sans as a share of its size, rounded up."""

_HINTED = 1.1
"""How much wider narrow letters are drawn, since each takes whole pixels."""

MOST_LETTERS = 300
"""No figure has room for more in a line."""

_BOLD = 1.1
"""How much wider bold letters are."""


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in the one style, whatever the user's matplotlibrc says; also a decorator."""
    import matplotlib

    defaults = matplotlib.rcParamsDefault
    settings: dict[Any, Any] = {name: defaults[name] for name in defaults if name != "backend"}
    with matplotlib.rc_context(settings | STYLE):
        yield


def drawn(drawings: Mapping[str, Callable[[], Figure]]) -> dict[str, Figure]:
    """The figures that can be drawn; of another one, a warning says why it is missing."""
    figures = {}
    for name, draw in drawings.items():
        with expendable(name):
            figures[name] = draw()
    return figures


def png_files(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """The figures as files, by their path among the artifacts; see `drawn` for what fails."""
    files = {}
    for name, figure in figures.items():
        with expendable(name):
            files[f"figures/{name}.png"] = png(figure)
    return files


@contextlib.contextmanager
def expendable(name: str) -> Iterator[None]:
    """Make an error in drawing a figure a warning, which says that it is missing and why."""
    try:
        yield
    except Exception as error:  # a picture is not worth a result
        reason = mask(str(error)).partition("\n")[0]
        warnings.warn(f"the figure {name} could not be drawn: {reason}", stacklevel=2)


def headed_figure(
    width: float, height: float, heading: str, lines: Sequence[str], *, arranged: bool = False
) -> Figure:
    """An empty figure of this size in inches, with a heading and grey lines below it.

    Text that is too long for the figure is cut.

    Args:
        arranged: whether Matplotlib arranges axes and legends below the heading; otherwise the
            caller places them, `heading_height` inches down.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    below = (0, 0, 1, 1 - heading_height(lines) / height)
    layout = ConstrainedLayoutEngine(rect=below, w_pad=0.08) if arranged else None
    figure = Figure((width, height), dpi=DPI, layout=layout)
    free = width - 2 * MARGIN
    bold = cut_text(heading, free, 14 * _BOLD)
    write(figure, MARGIN, 0.29, bold, fontsize=14, fontweight="bold")
    for number, line in enumerate(lines):
        write(figure, MARGIN, 0.51 + LINE * number, cut_text(line, free, 10), color=GREY)
    return figure


def heading_height(lines: Sequence[str]) -> float:
    """Inches that a heading and the lines below it take."""
    return 0.46 + LINE * len(lines)


def write(figure: Figure, left: float, base: float, text: str, **options: Any) -> None:
    """Write text on a figure, in inches from its upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - base / height, text, **options)


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes to a figure, in inches from its upper left corner."""
    whole, high = figure.get_size_inches()
    return figure.add_axes(
        (left / whole, (high - top - height) / high, width / whole, height / high)
    )


def text_width(text: str, points: float = 10) -> float:
    """Inches that a text takes, on the generous side."""
    return len(text) * points * _LETTER / 72


def cut_text(text: str, width: float, points: float) -> str:
    """The text, shortened to fit into this width in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points)

    def fits(words: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that the font lacks; drawing it tells
            points = text_to_path.get_text_width_height_descent(words, font, ismath=False)[0]
        return _HINTED * points <= 72 * width

    text = harmless(text)
    if len(text) < MOST_LETTERS and fits(text):
        return text
    text = text[:MOST_LETTERS]
    while text and not fits(f"{text}…"):
        text = text[:-1]
    return f"{text}…"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return image_file(figure, "png")


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, letters as outlines."""
    return image_file(figure, "svg")


@styled()
def image_file(figure: Figure, kind: str) -> bytes:
    """The figure as a file of this kind (png, svg, pdf); the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=METADATA[kind])
    return file.getvalue()
