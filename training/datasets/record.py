"""What an adapter gives: one `Record` an image; and what the adapters share."""

import csv
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError


@dataclass(frozen=True)
class Record:
    """One image of a data set, as its distribution describes it.

    `path` lies under the data set's root and need not exist; `patient` is a public id, as
    "chestxray14:00001336", or a keyed hash; `view` is a code of `datasets.toml` or empty; a label that is NaN
    or absent is unknown.
    """

    path: Path
    dataset: str
    patient: str
    view: str
    split: str
    labels: Mapping[str, float]


@cache
def constants() -> dict[str, Any]:
    """The parsed `datasets.toml`: labels by data set, view codes, split names."""
    with (Path(__file__).parent / "datasets.toml").open("rb") as file:
        return tomllib.load(file)


def label_names(dataset: str) -> tuple[str, ...]:
    """The labels of a data set in their fixed order (`folder` has none of its own).

    Raises DatasetError for an unknown data set.
    """
    labels = constants()["labels"]
    if dataset not in labels:
        raise DatasetError(f"no data set is called {dataset!r}; there are: {', '.join(labels)}")
    return tuple(labels[dataset])


def read_table(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of each row of a CSV file that must have these columns.

    Raises DatasetError for an absent file, a missing column, a row of another length than the header, or
    bytes that are no UTF-8.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give the folder that holds the data set as it is distributed")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            if missing := [name for name in columns if name not in header]:
                raise DatasetError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(header)}")
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(f"{path}, line {reader.line_num}: wanted {len(header)} fields; mend it")
                yield reader.line_num, row
        except (UnicodeDecodeError, csv.Error):
            raise DatasetError(f"{path} is no CSV file in UTF-8; save it as one") from None


def named(names: Iterable[str]) -> str:
    """The first few of some names, and how many there are, for a message."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" … ({len(ordered)} in all)" if len(ordered) > 5 else "")


def refuse_duplicates(names: Iterable[str], source: Path) -> None:
    """Raise DatasetError if a name comes twice."""
    seen: set[str] = set()
    if twice := {name for name in names if name in seen or seen.add(name)}:  # type: ignore[func-returns-value]
        raise DatasetError(f"{source} names more than once: {named(twice)}; keep one row for each image")


def refuse_shared_patients(records: Iterable[Record], source: Path) -> None:
    """Raise DatasetError if a patient is in more than one split: scores on such a split mean nothing."""
    splits: dict[str, str] = {}
    shared = {r.patient for r in records if splits.setdefault(r.patient, r.split) != r.split}
    if shared:
        raise DatasetError(f"{source}: patients in more than one split: {named(shared)}; give each one split")
