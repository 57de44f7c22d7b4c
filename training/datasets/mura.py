"""MURA v1.1, radiographs of elbow, finger, forearm, hand, humerus, shoulder and wrist, as distributed.

    MURA-v1.1/{train,valid}_image_paths.csv, {train,valid}_labeled_studies.csv     (no header)
    MURA-v1.1/{train,valid}/XR_ELBOW/patient00011/study1_negative/image1.png

36,808 images of 13,457 studies in train and 3,197 of 1,199 in valid; 556 more are a test set that is not
distributed. A patient's number is the same under every body part, and no patient of train is in valid. Source:
Rajpurkar et al., arXiv:1712.06957; https://stanfordmlgroup.github.io/competitions/mura.
"""

import re
from pathlib import Path

from c2l_models.errors import DatasetError

from .pseudonym import Pseudonyms
from .record import OneRowEach, Record, below, distribution, read_table

NAME = "mura"
SPLITS = {"train": "train", "valid": "val"}
STUDY = r"MURA-v1\.1/((train|valid)/(XR_[A-Z]+)/patient(\d+)/(study\d+)_(positive|negative)/)"
STUDY_PATH, IMAGE_PATH = re.compile(STUDY), re.compile(STUDY + r"((?:\._)?image\d+\.png)")
FORM = "MURA-v1.1/{}/XR_<PART>/patient<number>/study<number>_<positive or negative>/"
AGAIN = "fetch the file again"


def records(root: Path) -> list[Record]:
    """One record a row of the lists of images; label `abnormal` 0 or 1, split "train" or "val" (valid).

    `root` is MURA-v1.1 or the folder that holds it. There is no view; the body part stands in `name`, where the
    patient is a keyed hash. Rows of `._image1.png` and the like, which macOS leaves behind, are passed over.

    Raises DatasetError, naming the line and never the path, for a row of another form, an image with two rows, a
    study without a label or with one that its folder contradicts, or a patient in both lists.
    """
    folder = distribution(root, "train_image_paths.csv", ("MURA-v1.1",))
    pseudonyms, once = Pseudonyms(NAME), OneRowEach()
    found = []
    for directory, split in SPLITS.items():
        labels = _labels(folder / f"{directory}_labeled_studies.csv", directory)
        table = folder / f"{directory}_image_paths.csv"
        for line, row in read_table(table, ("path",), header=False):
            match = IMAGE_PATH.fullmatch(row["path"].strip())
            if not match or match[2] != directory:
                raise DatasetError(f"{table}, line {line}: not {FORM.format(directory)}image<number>.png; {AGAIN}")
            if match[7].startswith("._"):
                continue
            study, part, number, file = match.group(1, 3, 4, 7)
            image, who = study + file, pseudonyms.patient(number)
            if study not in labels:
                raise DatasetError(f"{table}, line {line}: a study without a label in {directory}_labeled_studies.csv")
            once.check(image, who, split, table, line)
            found.append(
                Record(
                    path=folder / image,
                    dataset=NAME,
                    patient=f"{NAME}:{who}",
                    view="",
                    split=split,
                    labels={"abnormal": labels[study]},
                    study=f"{NAME}:{who}/{part}/{match[5]}",
                    name=below(folder / image, root).replace(f"patient{number}", who),
                )
            )
    return found


def _labels(table: Path, directory: str) -> dict[str, float]:
    """1 or 0 for each study's folder."""
    labels: dict[str, float] = {}
    for line, row in read_table(table, ("path", "label"), header=False):
        match = STUDY_PATH.fullmatch(row["path"].strip())
        if not match or match[2] != directory:
            raise DatasetError(f"{table}, line {line}: not {FORM.format(directory)},<0 or 1>; {AGAIN}")
        if row["label"].strip() != str(int(match[6] == "positive")):
            raise DatasetError(f"{table}, line {line}: the label is not what the folder's name says; {AGAIN}")
        if match[1] in labels:
            raise DatasetError(f"{table}, line {line}: a study that has a label already; keep one row for each study")
        labels[match[1]] = float(match[6] == "positive")
    return labels
