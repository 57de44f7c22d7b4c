"""The counts of a store beside those of the paper's corpus, `paper_corpus.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A part of a corpus: images in the store, images in the paper's corpus, and the figure that the paper prints."""

    dataset: str
    splits: str
    here: int
    paper: int
    printed: str


def beside_paper(counts: Mapping[tuple[str, str], int]) -> list[Row]:
    """The paper's sets, then whatever else the store holds, then the sum of both; nothing if it holds no such set.

    `counts` are images by (data set, split). A split that the paper does not take, such as ChestX-ray14's test
    list, has a row of its own.
    """
    corpus = paper_corpus()
    taken = {(part["dataset"], split): row for row, part in enumerate(corpus["sets"]) for split in part["splits"]}
    if not {part["dataset"] for part in corpus["sets"]} & {dataset for dataset, _ in counts}:
        return []
    here = [0] * len(corpus["sets"])
    for part, count in counts.items():
        if part in taken:
            here[taken[part]] += count
    rows = [
        Row(part["dataset"], " + ".join(part["splits"]), count, part["images"], part["printed"])
        for part, count in zip(corpus["sets"], here, strict=True)
    ]
    rows += [Row(*part, count, 0, "") for part, count in sorted(counts.items()) if part not in taken]
    return [*rows, Row("sum", "", sum(r.here for r in rows), sum(r.paper for r in rows), corpus["printed"])]


def table(rows: list[Row]) -> Table:
    """The rows, to be printed."""
    shown = Table(title="This store beside the paper's corpus")
    for name in ("data set", "splits"):
        shown.add_column(name)
    for name in ("images here", "in the paper's corpus", "as the paper prints it"):
        shown.add_column(name, justify="right")
    for row in rows:
        if row.dataset == "sum":
            shown.add_section()
        shown.add_row(row.dataset, row.splits, f"{row.here:,}", f"{row.paper:,}" if row.paper else "–", row.printed)
    return shown


@cache
def paper_corpus() -> dict[str, Any]:
    """The parsed `paper_corpus.toml`."""
    with (Path(__file__).parent / "paper_corpus.toml").open("rb") as file:
        return tomllib.load(file)
