"""The paper's tables as data, read from paper_tables.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAPER = Path(__file__).with_name("paper_tables.toml")


@dataclass(frozen=True)
class PaperTable:
    """A table as printed.

    Attributes:
        name: "table1" to "table5".
        title: of the table.
        unit: of its metrics.
        metrics: printed values, by row and column.
    """

    name: str
    title: str
    unit: str
    metrics: Mapping[str, Mapping[str, float]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in printed order."""
        return tuple(next(iter(self.metrics.values())))


@cache
def paper_tables() -> dict[str, PaperTable]:
    """The paper's tables by name."""
    tables = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    return {
        name: PaperTable(
            name,
            table["title"],
            table["unit"],
            {row["name"]: dict(zip(table["columns"], row["values"], strict=True)) for row in table["rows"]},
        )
        for name, table in tables.items()
    }
