"""Line charts as SVG: coordinates, ticks and labels for the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, TOP, BOTTOM, RIGHT = 46, 10, 40, 14
"""Margins of a chart, in its own units; a letter of its labels is 12 units high."""
HEIGHT, WIDTH, SQUARE = 206, 300, 206
"""Size of the area in which lines are drawn."""
COLOURS, DASHES = 6, 4
"""Numbers of colours and dashes in report.css."""
SHIFT = 3
"""Horizontal distance of the points of two lines, so that their intervals do not overlap."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: name in the legend.
        x, y: coordinates of its points, in the chart's data.
        note: its metric, shown after the name.
        low, high: ends of each point's interval; empty: without intervals.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    note: str = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Lines in one panel.

    Attributes:
        title: title of the panel.
        x_label, y_label: quantities of the axes.
        lines: the lines, in the order of their styles.
        x_limits, y_limits: ends of the axes; None: chosen from the points.
        square: draw an area as wide as high, with its diagonal, as for a ROC curve.
        x_ticks: values on the x axis; empty: chosen.
        log: the x axis is logarithmic.
        points: mark each point.
        least: smallest span of the y axis, so that noise does not look like progress.
        apart: shift the lines sideways, so that their intervals do not overlap.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    square: bool = False
    x_ticks: Sequence[float] = ()
    log: bool = False
    points: bool = False
    least: float = 0.0
    apart: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole chart."""
        return LEFT + self.width + RIGHT, TOP + HEIGHT + BOTTOM

    @property
    def width(self) -> int:
        """Width of the area in which lines are drawn."""
        return SQUARE if self.square else WIDTH

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the area in which lines are drawn."""
        return LEFT, TOP, LEFT + self.width, TOP + HEIGHT

    @property
    def x_range(self) -> tuple[float, float]:
        """Ends of the x axis."""
        if self.x_limits:
            return self.x_limits
        values = [value for line in self.lines for value in line.x]
        if self.log:
            return min(values) / 1.3, max(values) * 1.3
        return _apart(min(values), max(values))

    @property
    def y_range(self) -> tuple[float, float]:
        """Ends of the y axis: whole ticks around all points and intervals."""
        if self.y_limits:
            return self.y_limits
        values = [v for line in self.lines for v in (*line.y, *line.low, *line.high) if math.isfinite(v)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        more = max(self.least - (high - low), 0) / 2
        low, high = _apart(low - more, high + more)
        step = _step(low, high)
        return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def at_x(self, value: float) -> str:
        """The x coordinate of a value, as text."""
        low, high = self.x_range
        share = math.log(value / low) / math.log(high / low) if self.log else (value - low) / (high - low)
        return _short(LEFT + share * self.width)

    def at_y(self, value: float) -> str:
        """The y coordinate of a value, as text."""
        low, high = self.y_range
        return _short(TOP + HEIGHT * (high - value) / (high - low))

    def path(self, line: Line) -> str:
        """The points of a line, as SVG's `polyline` takes them. Values that are not finite are left out."""
        pairs = [(self.at_x(x), self.at_y(y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
        return " ".join(f"{x},{y}" for x, y in dict.fromkeys(pairs))

    def whiskers(self, line: Line) -> list[tuple[str, str, str]]:
        """The interval of each point of a line: x coordinate, and y coordinates of both ends."""
        ends = zip(line.x, line.low, line.high, strict=False)
        return [(self.at_x(x), self.at_y(low), self.at_y(high)) for x, low, high in ends if math.isfinite(low)]

    def shift(self, number: int) -> float:
        """The horizontal shift of a line, in the chart's units."""
        return SHIFT * (number - (len(self.lines) - 1) / 2) if self.apart else 0

    def style(self, number: int) -> str:
        """The classes of a line's colour and dashes. Not every reader tells colours apart."""
        return f"c{number % COLOURS} d{number % DASHES}"

    @property
    def ticks(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Coordinate and text of each tick of the x axis, and of the y axis."""
        x = [(self.at_x(value), f"{value:g}") for value in self.x_ticks or _ticks(*self.x_range)]
        return x, [(self.at_y(value), f"{value:g}") for value in _ticks(*self.y_range)]

    @property
    def description(self) -> str:
        """The chart in words, for readers who do not see it."""
        lines = "; ".join(filter(None, (" ".join(filter(None, (line.name, line.note))) for line in self.lines)))
        axes = f"{self.y_label or self.title} against {self.x_label}"
        return ". ".join(filter(None, (f"{self.title}: {axes}" if self.y_label else axes, lines)))


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two ends of an axis that are not equal."""
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))


def _step(low: float, high: float) -> float:
    """The distance of some five ticks: 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]
