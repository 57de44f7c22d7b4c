"""CheXpert v1.0 as distributed: in full size or `-small`, which are laid out alike, or in batches.

    CheXpert-v1.0/train.csv, valid.csv
    CheXpert-v1.0/{train,valid}/patient00001/study1/view1_frontal.jpg

    CheXpert-v1.0 batch 1 (validate & csv)/train.csv, valid.csv, valid/…
    CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg, … batch 4 (train 3)/…

223,414 images of 64,540 patients in train.csv, and 234 of 200 patients in valid.csv, the official validation
set. The official test set (668 images), where it lies beside them: `test/` with `test.csv`, or else
`test_labels.csv`. Source: Irvin et al., AAAI 2019; https://stanfordmlgroup.github.io/competitions/chexpert.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .observations import NAMES, observations
from .pseudonym import Pseudonyms
from .record import OneRowEach, Record, below, constants, distribution, read_table

NAME = "chexpert"
FIRST_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small", FIRST_BATCH)
BATCH = re.compile(r"CheXpert-v1\.0 batch .* \(train .*\)")
PATH = re.compile(
    r"(?:CheXpert(?:-v1\.0(?:-small)?)?/)?"
    r"((train|valid|test)/(patient(\d+)/(study\d+)/view\d+_(frontal|lateral)\.jpg))"
)


def records(root: Path) -> list[Record]:
    """One record a row of the label files; split "train", "val" (valid.csv) or "test".

    `root` is the folder of train.csv and valid.csv, or the one that holds it, or the batches. Labels are 1, 0,
    -1 (uncertain), or absent where the row is blank; the view is that of the column AP/PA, else LATERAL for a
    lateral. Patients are keyed hashes, also in `name`.

    Raises DatasetError, naming the line and never the path, for a row of another form, an image with two rows,
    or a patient in two splits.
    """
    folder = distribution(root, "train.csv", FOLDERS)
    if root.resolve().name == FIRST_BATCH:
        raise DatasetError(f"{root} is one batch of four; give the folder that holds the batches")
    batches = {
        name: root / batch for batch in names_in(root) if BATCH.fullmatch(batch) for name in names_in(root / batch)
    }
    pseudonyms, once = Pseudonyms(NAME), OneRowEach()
    found = []
    for table, split, directory in _tables(folder):
        for line, row in read_table(table, ("Path", *NAMES)):
            match = PATH.fullmatch(row["Path"].strip())
            if not match or match[2] != directory:
                raise DatasetError(
                    f"{table}, line {line}: Path is not of the form CheXpert-v1.0/{directory}/patient<number>/"
                    "study<number>/view<number>_frontal.jpg (or _lateral.jpg); fetch the file again"
                )
            image, inside, number, study, file = match.group(1, 3, 4, 5, 6)
            batch = batches.get(inside.split("/")[0]) if split == "train" else None
            path = batch / inside if batch else folder / image
            who = pseudonyms.patient(number)
            patient = f"{NAME}:{who}"
            once.check(image, patient, split, table, line)
            found.append(
                Record(
                    path=path,
                    dataset=NAME,
                    patient=patient,
                    view=_view(row, file),
                    split=split,
                    labels=observations(row, table, line),
                    study=f"{patient}/{study}",
                    name=below(path, root).replace(f"patient{number}", who),
                )
            )
    return found


def _tables(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Label file, split and folder of images; the test set's where it is there."""
    yield folder / "train.csv", "train", "train"
    yield folder / "valid.csv", "val", "valid"
    tests = (folder / name for name in ("test.csv", "test_labels.csv"))
    yield from [(table, "test", "test") for table in tests if table.is_file()][:1]


def _view(row: Mapping[str, str], file: str) -> str:
    code = row.get("AP/PA", "").strip()
    if code in constants()["views"]:
        return code
    return "LATERAL" if file == "lateral" else ""
