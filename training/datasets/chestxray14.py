"""NIH ChestX-ray14 as distributed: label file, official lists, `images/` or `images_001/images/` …."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .record import OneRowEach, Record, label_names, named, read_table

NAME = "chestxray14"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""As NIH distributes it, corrected in 2020, and as Kaggle does."""
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
PART = re.compile(r"images_\d+")
SIDE = 1024
"""Pixels of a film as distributed, each way; what the boxes are in."""
BOX_COLUMNS = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]
BOX_NAMES = {"Infiltrate": "Infiltration"}
"""What the box file calls otherwise than the label file."""


class FindingBox(NamedTuple):
    """A finding's box on an image of SIDE x SIDE pixels; lengths in pixels."""

    image: str
    finding: str
    left: float
    top: float
    width: float
    height: float


def records(root: Path) -> list[Record]:
    """One record a row of the label file: all 14 labels 0 or 1, view PA or AP, split "train_val" or "test".

    112,120 images of 30,805 patients, 86,524 of them in train_val; a study is a patient's follow-up number.
    An image that is not on disk still gets a record, at `root/images`. Raises DatasetError if the label file
    and the two official lists do not name the same images once each, if a patient is in both lists, or if a
    finding is unknown.
    """
    table = next((root / name for name in TABLES if (root / name).is_file()), root / TABLES[0])
    columns = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    rows = dict(read_table(table, columns))
    splits = _splits(root, table, {row["Image Index"] for row in rows.values()})
    files = _files(root)
    once = OneRowEach()
    found = []
    for line, row in rows.items():
        image = row["Image Index"]
        patient = f"{NAME}:{_patient(row['Patient ID'], table, line)}"
        once.check(image, patient, splits[image], table, line)
        found.append(
            Record(
                path=files.get(image, root / "images" / image),
                dataset=NAME,
                patient=patient,
                view=row["View Position"] if row["View Position"] in ("PA", "AP") else "",
                split=splits[image],
                labels=_labels(row["Finding Labels"], table, line),
                study=f"{patient}/{row['Follow-up #']}" if row.get("Follow-up #") else "",
            )
        )
    return found


def boxes(table: Path) -> list[FindingBox]:
    """The boxes of BBox_List_2017.csv, in its order: 984 on 880 images in the full list, eight findings.

    Raises DatasetError for an absent file, another one, a finding that is unknown, or a box that is not on its image.
    """
    if not table.is_file():
        raise DatasetError(f"{table} is missing; wanted BBox_List_2017.csv, as it is distributed with the images")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error):
        raise DatasetError(f"{table} is no CSV file in UTF-8; fetch it again") from None
    if not rows or rows[0][:6] != BOX_COLUMNS:
        raise DatasetError(f"{table} does not begin with the columns {', '.join(BOX_COLUMNS)}; fetch it again")
    # The line of names has three commas at its end that a row need not have.
    return [_box(row, f"{table}, line {line}") for line, row in enumerate(rows[1:], start=2) if row]


def _box(row: list[str], place: str) -> FindingBox:
    try:
        image, finding = row[:2]
        left, top, width, height = map(float, row[2:6])
    except ValueError:
        raise DatasetError(f"{place}: wanted an image, a finding and four numbers; fetch the file again") from None
    name = BOX_NAMES.get(finding, finding)
    if name not in label_names(NAME):
        raise DatasetError(f"{place}: unknown finding; wanted: {', '.join(label_names(NAME))}")
    if not (min(width, height) > 0 and -width < left < SIDE and -height < top < SIDE):
        raise DatasetError(f"{place}: the box is not on an image of {SIDE} x {SIDE} pixels; fetch the file again")
    return FindingBox(image, name, left, top, width, height)


def _files(root: Path) -> dict[str, Path]:
    folders = [root / "images", *(root / part / "images" for part in names_in(root) if PART.fullmatch(part))]
    return {name: folder / name for folder in folders for name in names_in(folder)}


def _splits(root: Path, table: Path, images: set[str]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, name in LISTS.items():
        if not (root / name).is_file():
            raise DatasetError(f"{root / name} is missing; the official lists belong to the distribution")
        listed = set((root / name).read_text(encoding="utf-8").split())
        if both := listed & splits.keys():
            raise DatasetError(f"{root}: images in both official lists: {named(both)}; fetch the lists again")
        splits.update(dict.fromkeys(listed, split))
    if neither := images - splits.keys():
        raise DatasetError(f"{table}: in neither official list: {named(neither)}; fetch them again")
    if unknown := splits.keys() - images:
        raise DatasetError(f"{root}: listed, but not in {table.name}: {named(unknown)}; fetch it again")
    return splits


def _patient(text: str, table: Path, line: int) -> str:
    if not text.isdecimal():
        raise DatasetError(f"{table}, line {line}: Patient ID {text!r} is no number; fetch the file again")
    return f"{int(text):08d}"


def _labels(findings: str, table: Path, line: int) -> dict[str, float]:
    names = label_names(NAME)
    present = set(findings.split("|")) - {"No Finding"}
    if unknown := present - set(names):
        raise DatasetError(f"{table}, line {line}: unknown finding {named(unknown)}; wanted: {', '.join(names)}")
    return {name: float(name in present) for name in names}
