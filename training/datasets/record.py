"""What an adapter gives: one `Record` an image; and what the adapters share."""

import csv
import gzip
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from c2l_models.errors import DatasetError


@dataclass(frozen=True)
class Record:
    """One image of a data set, as its distribution describes it.

    `path` lies under the data set's root and need not exist; `patient` is a public id, as
    "chestxray14:00001336", or a keyed hash; `view` is a code of `datasets.toml` or empty; a label that is NaN
    or absent is unknown. `study` is the id of the study, as public or hashed as `patient` is, or empty.
    `name` is what a store shows in place of the path under the root, where that holds numbers of patients of a
    set that is not public; empty: the path itself.
    """

    path: Path
    dataset: str
    patient: str
    view: str
    split: str
    labels: Mapping[str, float]
    study: str = ""
    name: str = ""


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
    names = labels[dataset]
    return label_names(names) if isinstance(names, str) else tuple(names)


def read_table(path: Path, columns: Iterable[str], header: bool = True) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of each row of a CSV file, gzipped or not, that must have these columns.

    Without `header` the file has no line of names, and these columns alone. Raises DatasetError for an absent
    file, a missing column, a row of another length, bytes that are no UTF-8, or a torn gzip file; no message
    quotes a field.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give the folder that holds the data set as it is distributed")
    names = tuple(columns)
    try:
        with _open_text(path) as file:
            reader = csv.DictReader(file, None if header else names)
            fields = reader.fieldnames or ()
            if missing := [name for name in names if name not in fields]:
                raise DatasetError(
                    f"{path} has no column {', '.join(missing)} among its {len(fields)}; fetch the file again"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(f"{path}, line {reader.line_num}: wanted {len(fields)} fields; mend it")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error):
        raise DatasetError(f"{path} is no CSV file in UTF-8; save it as one") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise DatasetError(f"{path} is no whole gzip file; fetch it again") from None


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def distribution(root: Path, file: str, names: Iterable[str]) -> Path:
    """The folder that holds `file`: `root`, or its one child of these names.

    Raises DatasetError if there is none, or more than one.
    """
    folders = [folder for folder in (root, *(root / name for name in names)) if (folder / file).is_file()]
    if not folders:
        raise DatasetError(f"{root / file} is missing; give the folder that holds the data set as it is distributed")
    if len(folders) > 1:
        raise DatasetError(f"{root} holds {' and '.join(f.name for f in folders)}, the same images; give one of them")
    return folders[0]


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


class OneRowEach:
    """Refuses an image's second row, and a patient's second split, naming lines where ids are not to be shown."""

    def __init__(self) -> None:
        self._images: dict[str, tuple[Path, int]] = {}
        self._splits: dict[str, tuple[str, Path, int]] = {}

    def check(self, image: str, patient: str, split: str, table: Path, line: int) -> None:
        """Raise DatasetError if a row before this one was of this image, or of this patient in another split."""
        place = (table, line)
        before, at = earlier = self._images.setdefault(image, place)
        if earlier is not place:
            raise DatasetError(
                f"{table}, line {line}: the image of {before.name}, line {at} again; keep one row for each image"
            )
        other, before, at = self._splits.setdefault(patient, (split, table, line))
        if other != split:
            raise DatasetError(
                f"{table}, line {line}: a patient of split {split} who is in {other} too, by {before.name}, "
                f"line {at}; fetch the lists again, or give each patient one split"
            )
