"""A store beside the paper's corpus, `paper_corpus.toml`, and the patients whom its parts share."""

import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

KINDS = {"train": 0, "train_val": 0, "val": 1, "test": 2}
"""Splits in the order of training, validation and test."""

GROUPED = ("patient", "dataset", "split", "count_all")


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


@dataclass(frozen=True)
class Shared:
    """How many images of a part of a corpus, such as "rsna/train", are of patients of another part, and of how many."""

    part: str
    other: str
    images: int
    patients: int


def shared_patients(index: pa.Table) -> list[Shared]:
    """Leakage: the patients that are in two parts of different kinds (training, validation, test), by pair of parts.

    `index` is a store's, of which dataset, split and patient are read; a second at 750,000 rows. Of a pair, `part` is
    the one nearer to training: its images are those to leave out. Sets that name the same people differently, as
    by keyed hashes of their own, cannot be compared.
    """
    counted = index.group_by(["patient", "dataset", "split"]).aggregate([([], "count_all")])
    parts: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for patient, dataset, split, images in zip(*(counted[name].to_pylist() for name in GROUPED), strict=True):
        parts[patient].append((KINDS[split], f"{dataset}/{split}", images))
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for of_patient in parts.values():
        for (kind, part, images), (other_kind, other, _) in combinations(sorted(of_patient), 2):
            if kind != other_kind:
                found[part, other].append(images)
    return [Shared(*pair, sum(images), len(images)) for pair, images in sorted(found.items())]


def table(rows: list[Row]) -> Table:
    """The rows, to be printed."""
    printed = Table(title="This store beside the paper's corpus")
    for name in ("data set", "splits"):
        printed.add_column(name)
    for name in ("images here", "in the paper's corpus", "as the paper prints it"):
        printed.add_column(name, justify="right")
    for row in rows:
        if row.dataset == "sum":
            printed.add_section()
        printed.add_row(row.dataset, row.splits, f"{row.here:,}", f"{row.paper:,}" if row.paper else "–", row.printed)
    return printed


@cache
def paper_corpus() -> dict[str, Any]:
    """The parsed `paper_corpus.toml`."""
    with (Path(__file__).parent / "paper_corpus.toml").open("rb") as file:
        return tomllib.load(file)
