"""CheXpert v1.0 as distributed: at full size or `-small`, which have the same layout, or in batches.

    CheXpert-v1.0/train.csv, valid.csv
    CheXpert-v1.0/{train,valid}/patient00001/study1/view1_frontal.jpg

    CheXpert-v1.0 batch 1 (validate & csv)/train.csv, valid.csv, valid/…
    CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg, … batch 4 (train 3)/…

train.csv lists 223,414 images of 64,540 patients; valid.csv, the official validation set, lists 234 images of 200
patients. The official test set (668 images) is read if it is in the same folder: `test/` with `test.csv` or, if that
is missing, `test_labels.csv`. Source: Irvin et al., AAAI 2019; https://stanfordmlgroup.github.io/competitions/chexpert.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .constants import constants
from .label_tables import UniqueRows, find_distribution, read_table
from .observations import NAMES, observations
from .pseudonym import Pseudonyms
from .record import Record, relative_path

NAME = "chexpert"
FIRST_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small", FIRST_BATCH)
BATCH = re.compile(r"CheXpert-v1\.0 batch .* \(train .*\)")
PATH = re.compile(
    r"(?:CheXpert(?:-v1\.0(?:-small)?)?/)?"
    r"((train|valid|test)/(patient(\d+)/(study\d+)/view\d+_(frontal|lateral)\.jpg))"
)


def records(root: Path) -> list[Record]:
    """One record per row of the label files; split "train", "val" (valid.csv) or "test".

    `root` is the folder that contains train.csv and valid.csv, its parent folder, or the folder of the batches.
    Labels are 1, 0, -1 (uncertain), or absent if the field is blank. The view is the code in the column AP/PA. If that
    column has no view code, it is LATERAL for a lateral image, otherwise empty. Patients are keyed hashes, also in
    `name`.

    Raises DatasetError, which names the line and never the path, for a row of another form, an image with two rows,
    or a patient in two splits.
    """
    folder = find_distribution(root, "train.csv", FOLDERS)
    if root.resolve().name == FIRST_BATCH:
        raise DatasetError(f"{root} is one batch of four; give the folder that contains all batches")
    batches = {
        name: root / batch for batch in names_in(root) if BATCH.fullmatch(batch) for name in names_in(root / batch)
    }
    pseudonyms, unique = Pseudonyms(NAME), UniqueRows()
    found = []
    for table, split, directory in _tables(folder):
        for line, row in read_table(table, ("Path", *NAMES)):
            match = PATH.fullmatch(row["Path"].strip())
            if not match or match[2] != directory:
                raise DatasetError(
                    f"{table}, line {line}: expected a Path of the form CheXpert-v1.0/{directory}/patient<number>/"
                    "study<number>/view<number>_frontal.jpg (or _lateral.jpg); download the file again"
                )
            image, inside, number, study, position = match.group(1, 3, 4, 5, 6)
            batch = batches.get(inside.split("/")[0]) if split == "train" else None
            path = batch / inside if batch else folder / image
            pseudonym = pseudonyms.patient(number)
            patient = f"{NAME}:{pseudonym}"
            unique.check(image, patient, split, table, line)
            found.append(
                Record(
                    path=path,
                    dataset=NAME,
                    patient=patient,
                    view=_view(row, position),
                    split=split,
                    labels=observations(row, table, line),
                    study=f"{patient}/{study}",
                    name=relative_path(path, root).replace(f"patient{number}", pseudonym),
                    body_part="chest",
                )
            )
    return found


def _tables(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Label file, split and image folder; the test set only if its label file exists."""
    yield folder / "train.csv", "train", "train"
    yield folder / "valid.csv", "val", "valid"
    tests = (folder / name for name in ("test.csv", "test_labels.csv"))
    yield from [(table, "test", "test") for table in tests if table.is_file()][:1]


def _view(row: Mapping[str, str], position: str) -> str:
    code = row.get("AP/PA", "").strip()
    if code in constants()["views"]:
        return code
    return "LATERAL" if position == "lateral" else ""
