"""Read and check label files; for all adapters. No message quotes a field, because it may identify a patient."""

import csv
import gzip
import warnings
import zlib
from collections.abc import Collection, Container, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from c2l_models.errors import DatasetError


def read_table(
    path: Path, columns: Iterable[str], header: bool = True, optional: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a CSV file, which may be gzipped.

    With a header, fields may be separated by commas, semicolons or tabs, the names may have spaces around them, and the
    named columns may be spelt in another case; the fields have the names given here.

    Args:
        path: the file, in UTF-8.
        columns: columns that the file must have.
        header: whether the first line contains the column names. If not, `columns` names all columns.
        optional: columns that the file may have.

    Raises DatasetError, which quotes no field: the file is missing or unreadable, is not UTF-8 or is a damaged gzip
    file, lacks a column, has two columns of one name, or has a row with another number of fields.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give the folder that contains the data set as it is distributed")
    names = tuple(columns)
    try:
        with _open_text(path) as file:
            known = (*names, *optional)
            reader = csv.reader(file, delimiter=_delimiter(file, known) if header else ",")
            fields = _named(next(reader, []), known, path) if header else list(names)
            if missing := [name for name in names if name not in fields]:
                raise DatasetError(
                    f"{path} has no column {', '.join(missing)} among its {len(fields)} columns; "
                    "download the file again"
                )
            for row in reader:
                if len(row) == len(fields):
                    yield reader.line_num, dict(zip(fields, row, strict=True))
                elif row:  # a blank line is skipped
                    raise DatasetError(
                        f"{path}, line {reader.line_num}: expected {len(fields)} fields, found {len(row)}; "
                        "correct the line or download the file again"
                    )
    except (UnicodeDecodeError, csv.Error):
        raise DatasetError(f"{path} is not a CSV file in UTF-8; save it as CSV in UTF-8") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise DatasetError(f"{path} is not a complete gzip file; download it again") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; check its permissions") from None


def _delimiter(file: TextIO, known: Collection[str]) -> str:
    """The separator with which the first line has most of the known columns; a comma if several have."""
    line = file.readline()
    file.seek(0)
    names = {name.casefold() for name in known}
    found = {
        mark: len(names & {name.strip().casefold() for name in next(csv.reader([line], delimiter=mark), [])})
        for mark in ",;\t"
    }
    return max(found, key=lambda mark: found[mark])


def _named(fields: list[str], known: Collection[str], path: Path) -> list[str]:
    """The header without spaces around the names, and with the known columns in their own spelling.

    Raises DatasetError for two columns of one name.
    """
    fields = [field.strip() for field in fields]
    for name in known:
        alike = [i for i, field in enumerate(fields) if field.casefold() == name.casefold()]
        if name not in fields and len(alike) == 1:
            fields[alike[0]] = name
    for i, field in enumerate(fields):
        if field and field in fields[:i]:
            raise DatasetError(
                f"{path}: expected columns of different names, found the same name in columns "
                f"{fields.index(field) + 1} and {i + 1}; rename or remove one"
            )
    return fields


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def find_distribution(root: Path, file: str, names: Iterable[str]) -> Path:
    """The folder that contains `file`: `root`, or its only subfolder with one of these names that contains it.

    Raises DatasetError if no folder or more than one contains the file.
    """
    folders = [folder for folder in (root, *(root / name for name in names)) if (folder / file).is_file()]
    if not folders:
        raise DatasetError(f"{root / file} is missing; give the folder that contains the data set as it is distributed")
    if len(folders) > 1:
        raise DatasetError(
            f"{root} contains the same images twice, in {' and '.join(f.name for f in folders)}; give one of these "
            "folders"
        )
    return folders[0]


def summarize(names: Iterable[str]) -> str:
    """The first five names in sorted order, and their number if there are more; for messages."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" … ({len(ordered)} in all)" if len(ordered) > 5 else "")


def check_coverage(table: Path, listed: Container[str], expected: Collection[str]) -> None:
    """Check that a table covers the images.

    Args:
        table: the file, named in the messages.
        listed: the ids that the table lists.
        expected: the id of each image, or of its study.

    Raises DatasetError if the table lists none of the images. Warns if it lacks more than 1% of the images.
    """
    missing = sum(name not in listed for name in expected)
    if expected and missing == len(expected):
        raise DatasetError(
            f"{table} lists none of the {missing:,} images; download all tables again, from the same release"
        )
    if missing * 100 > len(expected):
        warnings.warn(f"{table} does not list {missing:,} of {len(expected):,} images", stacklevel=3)


class UniqueRows:
    """Refuses a second row of an image and a second split of a patient; the messages name lines, not ids."""

    def __init__(self) -> None:
        self._images: dict[str, tuple[Path, int]] = {}
        self._splits: dict[str, tuple[str, Path, int]] = {}

    def check(self, image: str, patient: str, split: str, table: Path, line: int) -> None:
        """Raise DatasetError if an earlier row has the same image, or the same patient in another split."""
        row = (table, line)
        first_table, first_line = first = self._images.setdefault(image, row)
        if first is not row:
            raise DatasetError(
                f"{table}, line {line}: same image as in {first_table.name}, line {first_line}; keep one row per image"
            )
        first_split, first_table, first_line = self._splits.setdefault(patient, (split, table, line))
        if first_split != split:
            raise DatasetError(
                f"{table}, line {line}: this patient is in split {split} here, but in split {first_split} in "
                f"{first_table.name}, line {first_line}; download the lists again, or give each patient one split"
            )
