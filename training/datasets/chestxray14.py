"""NIH ChestX-ray14 as distributed: label file, official lists, `images/` or `images_001/images/` …."""

import re
from pathlib import Path

from c2l_models.errors import DatasetError

from .listing import names_in
from .record import OneRowEach, Record, label_names, named, read_table

NAME = "chestxray14"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""As NIH distributes it, corrected in 2020, and as Kaggle does."""
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
PART = re.compile(r"images_\d+")


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
