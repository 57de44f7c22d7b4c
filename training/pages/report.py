"""The page of a report: sections of tables, charts, contact sheets and facts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from c2l_models.files import write_atomically

from .charts import Chart
from .render import FOLDER, data_uri, render

STRIP = 120
"""Width of the drawing of an interval, in its own units."""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of each row is its header.

    Attributes:
        caption: caption of the table.
        header: names of the C columns.
        rows: C cells each: text, or a metric with the attributes `value`, `low` and `high` (`Estimate`), whose interval
            is drawn, all on one scale.
        mark: value that a line marks in each drawing, such as 0.5 for chance; None: no line.
        meaning: meaning of the marked value.
        unmarked: rows without the line, by their first cell.
        folded: show the table only when it is opened.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    mark: float | None = 0.5
    meaning: str = "chance"
    unmarked: Sequence[str] = ()
    folded: bool = False
    kind: ClassVar = "table"

    @property
    def measured(self) -> list[Any]:
        """The cells that are metrics with an interval."""
        return [cell for row in self.rows for cell in row if math.isfinite(getattr(cell, "low", math.nan))]

    @property
    def scale(self) -> tuple[float, float]:
        """Ends of the scale of the drawn intervals, multiples of 0.05."""
        ends = [end for cell in self.measured for end in (cell.low, cell.high, cell.value)]
        ends += [] if self.mark is None else [self.mark]
        low, high = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
        return low, max(high, low + 0.05)

    def at(self, value: float) -> str:
        """The place of a value in the drawing of an interval, in units of `STRIP`."""
        low, high = self.scale
        return f"{STRIP * (value - low) / (high - low):.1f}"


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with a sentence about all of them. `folded`: the text to open them; empty: always shown."""

    charts: Sequence[Chart]
    note: str = ""
    folded: str = ""
    kind: ClassVar = "charts"


@dataclass(frozen=True)
class Sheet:
    """A picture with its description, which readers who do not see it get instead."""

    png: bytes
    description: str
    kind: ClassVar = "sheet"

    @property
    def address(self) -> str:
        """The picture as an address that contains it."""
        return data_uri(self.png, "png")


@dataclass(frozen=True)
class Facts:
    """Facts as JSON values, shown as a table of names and values."""

    caption: str
    values: Mapping[str, Any]
    kind: ClassVar = "facts"

    @property
    def lines(self) -> list[tuple[str, list[str]]]:
        """Name and lines of each fact. The name of a nested fact begins with that of its table."""
        return list(_flat(self.values))


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]
    kind: ClassVar = "text"


Block = Table | Charts | Sheet | Facts | Text


@dataclass(frozen=True)
class Section:
    """A heading, and the blocks below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report as one HTML page.

    Attributes:
        title: title of the page.
        summary: the main metrics, name and value.
        sections: the sections; those without blocks are left out.
    """

    title: str
    summary: Sequence[tuple[str, object]]
    sections: Sequence[Section]

    def write(self, file: Path) -> Path:
        """Write the page, atomically. Returns its path."""
        shown = [section for section in self.sections if section.blocks]
        films = any(isinstance(block, Sheet) for section in shown for block in section.blocks)
        write_atomically(file, render(FOLDER / "report.html", page=self, sections=shown, strip=STRIP, films=films))
        return file


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, list[str]]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)):
            together = all(isinstance(item, (int, float)) for item in value)
            yield name, [", ".join(map(_text, value)) or "–"] if together else list(map(_text, value))
        else:
            yield name, [_text(value)]


def _text(value: object) -> str:
    if value is None:
        return "unknown or none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "–"
