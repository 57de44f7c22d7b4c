"""What the pictures of an evaluation share: lines that can be told apart, and a PNG without a display."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#c1272d", "#1f5f99", "#2e7d32", "#222222", "#8e5ba6", "#e08a1e")
STYLES = tuple((colour, line) for line in ("-", "--", ":") for colour in COLOURS)
"""Colour and line of each of up to 18 runs."""


def as_png(figure: "Figure") -> bytes:
    """The picture's bytes, the same ones each time for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
