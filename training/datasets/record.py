"""What an adapter gives: one `Record` an image; and what the adapters share."""

import csv
import gzip
import os
import tomllib
import warnings
import zlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
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
    file, a missing column, a row of another length, bytes that are no UTF-8, a torn gzip file, or one that may
    not be read; no message quotes a field.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give the folder that holds the data set as it is distributed")
    names = tuple(columns)
    try:
        with _open_text(path) as file:
            reader = csv.reader(file)
            fields = next(reader, []) if header else list(names)
            if missing := [name for name in names if name not in fields]:
                raise DatasetError(
                    f"{path} has no column {', '.join(missing)} among its {len(fields)}; fetch the file again"
                )
            for row in reader:
                if len(row) == len(fields):
                    yield reader.line_num, dict(zip(fields, row, strict=True))
                elif row:  # a blank line is none
                    raise DatasetError(f"{path}, line {reader.line_num}: wanted {len(fields)} fields; mend it")
    except (UnicodeDecodeError, csv.Error):
        raise DatasetError(f"{path} is no CSV file in UTF-8; save it as one") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise DatasetError(f"{path} is no whole gzip file; fetch it again") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; give yourself the right to") from None


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


def below(path: Path, root: Path) -> str:
    """The path under the root, with `/` (much faster than pathlib's `relative_to`).

    Raises DatasetError, naming the root alone, for one outside it.
    """
    inside = str(path).removeprefix(_prefix(root))
    if os.path.isabs(inside) or ".." in inside.split(os.sep):  # noqa: PTH117, PTH206 - once for each of a million
        raise DatasetError(f"{root}: a label file names a file outside this folder; mend it or fetch it again")
    return inside.replace(os.sep, "/")


@cache
def _prefix(root: Path) -> str:
    return str(root / "_")[:-1]  # with its separator, or empty for the working directory


def check_match(table: Path, known: Container[str], wanted: Collection[str]) -> None:
    """Hold what a table tells against the images, given by the id that each has in it.

    Raises DatasetError if the table tells of none of them; warns of how many if it is silent on one in a hundred.
    """
    lacking = sum(name not in known for name in wanted)
    if wanted and lacking == len(wanted):
        raise DatasetError(f"{table} is of none of the {lacking:,} images; fetch all tables again, of one release")
    if lacking * 100 > len(wanted):
        warnings.warn(f"{table} says nothing of {lacking:,} of {len(wanted):,} images", stacklevel=3)


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
