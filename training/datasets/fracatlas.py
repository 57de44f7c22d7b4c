"""FracAtlas as distributed: `dataset.csv`, `images/Fractured/` and `images/Non_fractured/`.

4,083 radiographs of hand, leg, hip and shoulder; 717 show a fracture. Source: Abedeen et al., Scientific Data 2023;
https://doi.org/10.6084/m9.figshare.22363012.
"""

from pathlib import Path

from c2l_models.errors import DatasetError

from .label_tables import UniqueRows, read_table
from .record import Record

NAME = "fracatlas"
PARTS = ("hand", "leg", "hip", "shoulder")
VIEWS = ("frontal", "lateral", "oblique")
FOLDERS = {0: "Non_fractured", 1: "Fractured"}


def records(root: Path) -> list[Record]:
    """One record per row of `dataset.csv`; label `fractured` 0 or 1, split "train".

    The distribution has neither patient ids nor splits. Each image counts as its own patient, so two images of one
    patient cannot be told apart, and a split by patient may separate them. An image of several body parts has the body
    part "mixed". The view is LATERAL if the row states a lateral view only; frontal and oblique have no code.

    Raises DatasetError for a flag other than 0 and 1, a row without a body part, or an image with two rows.
    """
    table = root / "dataset.csv"
    unique = UniqueRows()
    found = []
    for line, row in read_table(table, ("image_id", *PARTS, *VIEWS, "fractured")):
        flags = {name: _flag(row[name], name, table, line) for name in (*PARTS, *VIEWS, "fractured")}
        parts = [name for name in PARTS if flags[name]]
        if not parts:
            raise DatasetError(
                f"{table}, line {line}: expected 1 for one or more of {', '.join(PARTS)}, found none; download the "
                "file again"
            )
        image, patient = row["image_id"], f"{NAME}:{row['image_id'].partition('.')[0]}"
        unique.check(image, patient, "train", table, line)
        found.append(
            Record(
                path=root / "images" / FOLDERS[flags["fractured"]] / image,
                dataset=NAME,
                patient=patient,
                view="LATERAL" if [name for name in VIEWS if flags[name]] == ["lateral"] else "",
                split="train",
                labels={"fractured": float(flags["fractured"])},
                body_part=parts[0] if len(parts) == 1 else "mixed",
            )
        )
    return found


def _flag(text: str, name: str, table: Path, line: int) -> int:
    if text not in ("0", "1"):
        raise DatasetError(f"{table}, line {line}: expected {name} 0 or 1, found {text!r}; download the file again")
    return int(text)
