"""Comparison of a store with the paper's corpus (`paper_corpus.toml`), and patients shared between splits."""

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

SPLIT_ORDER = {"train": 0, "train_val": 0, "val": 1, "test": 2}
"""Order of the splits: training, validation, test."""

GROUP_COLUMNS = ("patient", "dataset", "split", "count_all")


@dataclass(frozen=True)
class CorpusRow:
    """Image counts of some splits of a data set: in the store, in the paper's corpus, and as printed in the paper."""

    dataset: str
    splits: str
    in_store: int
    in_paper: int
    printed: str


def compare_with_paper(counts: Mapping[tuple[str, str], int]) -> list[CorpusRow]:
    """Compare a store with the paper's corpus: a row per data set of the paper, then other images, then the sum.

    `counts` is the number of images by (data set, split). A split that the paper does not use, such as ChestX-ray14's
    test list, has its own row. Returns an empty list if the store has none of the paper's data sets.
    """
    corpus = paper_corpus()
    row_of = {(part["dataset"], split): row for row, part in enumerate(corpus["sets"]) for split in part["splits"]}
    if not {part["dataset"] for part in corpus["sets"]} & {dataset for dataset, _ in counts}:
        return []
    in_store = [0] * len(corpus["sets"])
    for part, count in counts.items():
        if part in row_of:
            in_store[row_of[part]] += count
    rows = [
        CorpusRow(part["dataset"], " + ".join(part["splits"]), count, part["images"], part["printed"])
        for part, count in zip(corpus["sets"], in_store, strict=True)
    ]
    rows += [CorpusRow(*part, count, 0, "") for part, count in sorted(counts.items()) if part not in row_of]
    total = CorpusRow("sum", "", sum(r.in_store for r in rows), sum(r.in_paper for r in rows), corpus["printed"])
    return [*rows, total]


@dataclass(frozen=True)
class Overlap:
    """Patients shared by two parts of a corpus.

    Attributes:
        part, other: data set and split, such as "rsna/train"; `part` is nearer to training.
        images: images of the shared patients in `part`.
        patients: number of shared patients.
    """

    part: str
    other: str
    images: int
    patients: int


def shared_patients(index: pa.Table) -> list[Overlap]:
    """Detect leakage: patients in two parts of different kinds (training, validation, test), per pair of parts.

    `index` is a store's index: its dataset, split and patient are read (1 s for 750,000 rows). To remove the leakage,
    leave out the shared patients' images of `part`. If two data sets have different ids for the same person, such as
    keyed hashes, their shared patients are not found.
    """
    grouped = index.group_by(["patient", "dataset", "split"]).aggregate([([], "count_all")])
    parts: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for patient, dataset, split, images in zip(*(grouped[name].to_pylist() for name in GROUP_COLUMNS), strict=True):
        parts[patient].append((SPLIT_ORDER[split], f"{dataset}/{split}", images))
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for patient_parts in parts.values():
        for (order, part, images), (other_order, other, _) in combinations(sorted(patient_parts), 2):
            if order != other_order:
                found[part, other].append(images)
    return [Overlap(*pair, sum(images), len(images)) for pair, images in sorted(found.items())]


def table(rows: list[CorpusRow]) -> Table:
    """A table of the rows for the terminal."""
    shown = Table(title="This store compared with the paper's corpus")
    for name in ("data set", "splits"):
        shown.add_column(name)
    for name in ("images in this store", "in the paper's corpus", "as printed in the paper"):
        shown.add_column(name, justify="right")
    for row in rows:
        if row.dataset == "sum":
            shown.add_section()
        in_paper = f"{row.in_paper:,}" if row.in_paper else "–"
        shown.add_row(row.dataset, row.splits, f"{row.in_store:,}", in_paper, row.printed)
    return shown


@cache
def paper_corpus() -> dict[str, Any]:
    """The parsed `paper_corpus.toml`."""
    return tomllib.loads(Path(__file__).with_name("paper_corpus.toml").read_text(encoding="utf-8"))
