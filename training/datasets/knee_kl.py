"""Knee radiographs with Kellgren-Lawrence grades (Chen 2018, from the Osteoarthritis Initiative).

Two layouts are read: the publisher's folder kneeKL224 or kneeKL299, and a table of copies of the images.

    {train,val,test}/{0..4}/9000099L.png     subject 9000099, left knee; the folder is the grade
    labels.csv, images/9000099L.jpg          columns image, subject, side, kl_grade and split

Source: Chen, Knee Osteoarthritis Severity Grading Dataset, Mendeley Data, 2018; https://doi.org/10.17632/56rmx5bjcr.1.
"""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .label_tables import UniqueRows, read_table
from .record import Record

NAME = "knee_kl"
GRADES, SPLITS = ("0", "1", "2", "3", "4"), ("train", "val", "test")
IMAGE = re.compile(r"((\d{7})[LR])\.(?:png|jpe?g)")
"""File name in the publisher's folders: the knee, of which the subject is a part."""


class Knee(NamedTuple):
    """An image: its file, subject, grade "0" to "4" and split."""

    path: Path
    subject: str
    grade: str
    split: str


def records(root: Path) -> list[Record]:
    """One record per image; label `kl_grade` 0 to 4, split "train", "val" or "test".

    The view is PA, because the Osteoarthritis Initiative uses the fixed-flexion protocol. The side is not a view; it
    is part of the file's name. The study is the subject, because one film shows both knees. Of the publisher's folders,
    `auto_test` is left out: it shows the knees of `test` again.

    Raises DatasetError for a folder of another layout, another grade or split, an image with two rows or grades, or a
    subject in two splits.
    """
    if (table := root / "labels.csv").is_file():
        knees = _of_table(table)
    elif (root / SPLITS[0]).is_dir():
        knees = _of_folders(root)
    else:
        raise DatasetError(
            f"{root}: expected the publisher's folder kneeKL224 or kneeKL299, with train/0 to test/4, or a labels.csv "
            "and images/, found neither; give one of these folders"
        )
    return [
        Record(
            path=knee.path,
            dataset=NAME,
            patient=f"{NAME}:{knee.subject}",
            view="PA",
            split=knee.split,
            labels={"kl_grade": float(knee.grade)},
            study=f"{NAME}:{knee.subject}",
            body_part="knee",
        )
        for knee in knees
    ]


def _of_table(table: Path) -> Iterator[Knee]:
    unique = UniqueRows()
    for line, row in read_table(table, ("image", "subject", "side", "kl_grade", "split")):
        if row["kl_grade"] not in GRADES:
            raise DatasetError(
                f"{table}, line {line}: expected kl_grade 0 to 4, found {row['kl_grade']!r}; correct the line"
            )
        if row["split"] not in SPLITS:
            raise DatasetError(
                f"{table}, line {line}: expected split train, val or test, found {row['split']!r}; correct the line"
            )
        unique.check(row["image"], row["subject"], row["split"], table, line)
        yield Knee(table.parent / "images" / row["image"], row["subject"], row["kl_grade"], row["split"])


def _of_folders(root: Path) -> Iterator[Knee]:
    """Files of other names are left out; `c2l prepare` lists them."""
    grades: dict[str, str] = {}
    splits: dict[str, str] = {}
    for split, grade in product(SPLITS, GRADES):
        folder = root / split / grade
        if not (names := names_in(folder)):
            raise DatasetError(f"{folder}: expected images of grade {grade}, found none; unpack the data set again")
        for match in filter(None, map(IMAGE.fullmatch, names)):
            knee, subject = match.group(1, 2)
            if knee in grades:
                raise DatasetError(f"{root}: {knee} is in {grades[knee]} and {split}/{grade}; keep one file per knee")
            if (first := splits.setdefault(subject, split)) != split:
                raise DatasetError(
                    f"{root}: subject {subject} is in {first} and {split}; expected one split for each subject; unpack "
                    "the data set again"
                )
            grades[knee] = f"{split}/{grade}"
            yield Knee(folder / match[0], subject, grade, split)
