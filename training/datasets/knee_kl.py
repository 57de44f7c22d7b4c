"""Knee radiographs with Kellgren-Lawrence grades (Chen 2018, from the Osteoarthritis Initiative)."""

from pathlib import Path

from c2l_models.errors import DatasetError

from .label_tables import UniqueRows, read_table
from .record import Record

NAME = "knee_kl"


def records(root: Path) -> list[Record]:
    """One record per row of `labels.csv`; label `kl_grade` 0 to 4, split "train", "val" or "test".

    The view is PA, because the Osteoarthritis Initiative uses the fixed-flexion protocol. The side is not a view; it
    is part of the file's name. The study is the subject, because one film shows both knees.

    Raises DatasetError for another grade or split, for an image with two rows, or for a subject in two splits.
    """
    table = root / "labels.csv"
    unique = UniqueRows()
    found = []
    for line, row in read_table(table, ("image", "subject", "side", "kl_grade", "split")):
        if row["kl_grade"] not in ("0", "1", "2", "3", "4"):
            raise DatasetError(
                f"{table}, line {line}: expected kl_grade 0 to 4, found {row['kl_grade']!r}; correct the line"
            )
        if row["split"] not in ("train", "val", "test"):
            raise DatasetError(
                f"{table}, line {line}: expected split train, val or test, found {row['split']!r}; correct the line"
            )
        unique.check(row["image"], row["subject"], row["split"], table, line)
        found.append(
            Record(
                path=root / "images" / row["image"],
                dataset=NAME,
                patient=f"{NAME}:{row['subject']}",
                view="PA",
                split=row["split"],
                labels={"kl_grade": float(row["kl_grade"])},
                study=f"{NAME}:{row['subject']}",
                body_part="knee",
            )
        )
    return found
