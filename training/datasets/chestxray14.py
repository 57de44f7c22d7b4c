"""NIH ChestX-ray14 as distributed: label file, two official lists, and `images/` or `images_001/images/`, …"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .constants import label_names
from .label_tables import UniqueRows, read_table, summarize
from .record import Record

NAME = "chestxray14"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""Names of the label file, preferred first: NIH's correction of 2020, and the original, which Kaggle distributes."""
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
PART = re.compile(r"images_\d+")
SIDE = 1024
"""Width and height of a distributed image in pixels; boxes use these coordinates."""
BOX_COLUMNS = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]
BOX_NAMES = {"Infiltrate": "Infiltration"}
"""Label by name in the box file, for names that differ."""


class FindingBox(NamedTuple):
    """A finding's box on an image of SIDE x SIDE pixels; lengths in pixels."""

    image: str
    finding: str
    left: float
    top: float
    width: float
    height: float


def records(root: Path) -> list[Record]:
    """One record per row of the label file: all 14 labels 0 or 1, view PA or AP, split "train_val" or "test".

    112,120 images of 30,805 patients; 86,524 images are in train_val. The study is the patient's follow-up number. An
    image that is missing on disk keeps its record, with the path `root/images/…`.

    Raises DatasetError if the label file and the official lists do not name the same images, if an image has two rows
    or is in both lists, if a patient is in both lists, if a finding is unknown, or if `images` or `images_001`, … is
    not a folder.
    """
    table = next((root / name for name in TABLES if (root / name).is_file()), root / TABLES[0])
    columns = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    rows = dict(read_table(table, columns))
    splits = _splits(root, table, {row["Image Index"] for row in rows.values()})
    files = _files(root)
    unique = UniqueRows()
    found = []
    for line, row in rows.items():
        image = row["Image Index"]
        patient = f"{NAME}:{_patient(row['Patient ID'], table, line)}"
        unique.check(image, patient, splits[image], table, line)
        found.append(
            Record(
                path=files.get(image, root / "images" / image),
                dataset=NAME,
                patient=patient,
                view=row["View Position"] if row["View Position"] in ("PA", "AP") else "",
                split=splits[image],
                labels=_labels(row["Finding Labels"], table, line),
                study=f"{patient}/{row['Follow-up #']}" if row.get("Follow-up #") else "",
                body_part="chest",
            )
        )
    return found


def boxes(table: Path) -> list[FindingBox]:
    """The boxes of BBox_List_2017.csv in file order; the full list has 984 boxes of eight findings on 880 images.

    Raises DatasetError for a missing file, a file with other columns, an unknown finding, or a box that
    has no area or lies outside its image.
    """
    if not table.is_file():
        raise DatasetError(f"{table} is missing; expected BBox_List_2017.csv, which is distributed with the images")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error):
        raise DatasetError(f"{table} is not a CSV file in UTF-8; download it again") from None
    if not rows or rows[0][:6] != BOX_COLUMNS:
        raise DatasetError(f"{table}: expected the first columns {', '.join(BOX_COLUMNS)}; download the file again")
    # The header line ends with three commas; a row may lack them.
    return [_box(row, f"{table}, line {line}") for line, row in enumerate(rows[1:], start=2) if row]


def _box(row: list[str], where: str) -> FindingBox:
    try:
        image, finding = row[:2]
        left, top, width, height = map(float, row[2:6])
    except ValueError:
        raise DatasetError(f"{where}: expected an image, a finding and four numbers; download the file again") from None
    name = BOX_NAMES.get(finding, finding)
    if name not in label_names(NAME):
        raise DatasetError(
            f"{where}: unknown finding; expected one of {', '.join(label_names(NAME))}; download the file again"
        )
    if not (min(width, height) > 0 and -width < left < SIDE and -height < top < SIDE):
        raise DatasetError(
            f"{where}: the box has no area or is outside its image of {SIDE} x {SIDE} pixels; download the file again"
        )
    return FindingBox(image, name, left, top, width, height)


def _files(root: Path) -> dict[str, Path]:
    parts = [root / name for name in names_in(root) if name == "images" or PART.fullmatch(name)]
    if other := [part.name for part in parts if not part.is_dir()]:
        raise DatasetError(
            f"{root}: expected folders of images, found a file or a broken link: {summarize(other)}. A link that was "
            "copied to a disk without links becomes a small text file; put the folders in place"
        )
    folders = [part if part.name == "images" else part / "images" for part in parts]
    return {name: folder / name for folder in folders for name in names_in(folder)}


def _splits(root: Path, table: Path, images: set[str]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, name in LISTS.items():
        if not (root / name).is_file():
            raise DatasetError(f"{root / name} is missing; download it again, because the data set includes it")
        listed = set((root / name).read_text(encoding="utf-8-sig").split())
        if both := listed & splits.keys():
            raise DatasetError(f"{root}: images in both official lists: {summarize(both)}; download the lists again")
        splits.update(dict.fromkeys(listed, split))
    if neither := images - splits.keys():
        raise DatasetError(f"{table}: images in neither official list: {summarize(neither)}; download the lists again")
    if unknown := splits.keys() - images:
        raise DatasetError(
            f"{root}: images in the official lists, but not in {table.name}: {summarize(unknown)}; "
            f"download {table.name} again"
        )
    return splits


def _patient(text: str, table: Path, line: int) -> str:
    if not text.isdecimal():
        raise DatasetError(
            f"{table}, line {line}: expected a number as Patient ID, found {text!r}; download the file again"
        )
    return f"{int(text):08d}"


def _labels(findings: str, table: Path, line: int) -> dict[str, float]:
    names = label_names(NAME)
    present = set(findings.split("|")) - {"No Finding"}
    if unknown := present - set(names):
        raise DatasetError(
            f"{table}, line {line}: unknown finding {summarize(unknown)}; expected {', '.join(names)}; "
            "download the file again"
        )
    return {name: float(name in present) for name in names}
