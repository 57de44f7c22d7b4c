"""Knee radiographs with Kellgren-Lawrence grades (Chen 2018, from the Osteoarthritis Initiative)."""

from pathlib import Path

from c2l_models.errors import DatasetError

from .record import OneRowEach, Record, read_table

NAME = "knee_kl"


def records(root: Path) -> list[Record]:
    """One record a row of `labels.csv`; label `kl_grade` 0 to 4, split "train", "val" or "test".

    The view is PA, the Osteoarthritis Initiative's fixed-flexion protocol; the side is no view and stays in
    the file's name; the study is the subject, whose two knees are of one film. Raises DatasetError for another
    grade or split, an image named twice, or a subject in two splits.
    """
    table = root / "labels.csv"
    once = OneRowEach()
    found = []
    for line, row in read_table(table, ("image", "subject", "side", "kl_grade", "split")):
        if row["kl_grade"] not in ("0", "1", "2", "3", "4"):
            raise DatasetError(f"{table}, line {line}: kl_grade is {row['kl_grade']!r}; wanted 0 to 4")
        if row["split"] not in ("train", "val", "test"):
            raise DatasetError(f"{table}, line {line}: split is {row['split']!r}; wanted train, val or test")
        once.check(row["image"], row["subject"], row["split"], table, line)
        found.append(
            Record(
                path=root / "images" / row["image"],
                dataset=NAME,
                patient=f"{NAME}:{row['subject']}",
                view="PA",
                split=row["split"],
                labels={"kl_grade": float(row["kl_grade"])},
                study=f"{NAME}:{row['subject']}",
            )
        )
    return found
