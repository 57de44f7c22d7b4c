"""Style of all matplotlib plots: palette, figures without a display, axes, and saving as PNG."""

import io
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from c2l_models.files import write_atomically
from c2l_models.fonts import installed_font, lacks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

PALETTE = ("#c1272d", "#1f5f99", "#2e7d32", "#222222", "#8e5ba6", "#e08a1e")
LINE_STYLES = tuple((colour, line) for line in ("-", "--", ":") for colour in PALETTE)
"""Colour and line of up to 18 series."""
MARKERS = {"-": "o", "--": "s", ":": "^"}
"""The marker that replaces each line of `LINE_STYLES` where points are not connected."""
PAIRED = ("#c1272d", "#222222", "#7fa6c9", "#1f5f99", "#8fbf8f", "#2e7d32")
"""Two single colours, then pairs of a pale and a dark shade of one colour."""
REFERENCE = "0.6"
"""Grey of reference lines, such as chance."""
SMALLEST_SPAN = 0.1
"""Smallest span of an axis of AUROC over time."""
TITLE, LABEL, SMALL = 10, 9, 8
"""Font sizes, points: titles; legends and panel titles; text inside a panel."""
NAME_WIDTH = 30
"""Characters in a line of a label's or network's name, in a panel of some 3 inches."""


def new_figure(width: float, height: float, layout: "LayoutEngine | None" = None) -> "Figure":
    """A figure of this size in inches, at 100 dots per inch. It needs no display and changes no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout or "constrained")


def style_axes(axes: "Axes", title: str = "", grid: Literal["x", "y", "both", ""] = "") -> None:
    """Left-aligned title, pale grid lines behind the data, no frame at the top and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="0.9")
    if title:
        axes.set_title(title, loc="left", fontsize=TITLE)


def grid_shape(panels: int, most_columns: int) -> tuple[int, int]:
    """Rows and columns of a grid with as few rows as `most_columns` allow, and as few empty places as these rows."""
    rows = -(-panels // most_columns)
    return rows, -(-panels // rows)


def widen(axes: "Axes", smallest: float) -> None:
    """Widen the vertical axis about its middle to a span of `smallest`, so that noise does not look like progress."""
    low, high = axes.get_ylim()
    more = max(smallest - (high - low), 0) / 2
    axes.set_ylim(low - more, high + more)


def as_png(figure: "Figure") -> bytes:
    """The figure as a PNG. The same figure always has the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    show_as_written(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # reported by `installed_font`
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def show_as_written(figure: "Figure") -> None:
    """Draw every text of a figure as it is: no formulas between dollar signs, and fonts that have its characters."""
    import matplotlib
    from matplotlib.text import Text

    usual = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # creates them
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        text = artist.get_text()
        if not text.startswith("$\\mathdefault"):  # numbers of a log axis
            artist.set_parse_math(False)
        if not text.isascii() and lacks(usual, text) and (file := installed_font(text)):
            font = artist.get_fontproperties().copy()
            font.set_file(file)
            artist.set_fontproperties(font)


def wrapped(text: str, width: int) -> str:
    """A name that may be long, in lines of at most `width` characters; its own line breaks are kept.

    A name that begins with "_" gets a space before, because matplotlib's legends leave such names out.
    """
    lines = "\n".join("\n".join(textwrap.wrap(line, width)) for line in text.splitlines())
    return f" {lines}" if lines.startswith("_") else lines


def save_png(figure: "Figure", path: Path) -> None:
    """Write the figure as a PNG, atomically."""
    write_atomically(path, as_png(figure))
