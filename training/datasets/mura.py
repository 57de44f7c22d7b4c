"""MURA v1.1 as distributed: radiographs of elbow, finger, forearm, hand, humerus, shoulder and wrist.

    MURA-v1.1/{train,valid}_image_paths.csv, {train,valid}_labeled_studies.csv     (no header)
    MURA-v1.1/{train,valid}/XR_ELBOW/patient00011/study1_negative/image1.png

train has 36,808 images of 13,457 studies, valid 3,197 images of 1,199 studies. The test set of 556 images is not
distributed. A patient has the same number under every body part, and no patient of train is in valid. Source:
Rajpurkar et al., arXiv:1712.06957; https://stanfordmlgroup.github.io/competitions/mura.
"""

import re
from pathlib import Path

from c2l_models.errors import DatasetError

from .label_tables import UniqueRows, find_distribution, read_table
from .pseudonym import Pseudonyms
from .record import Record, relative_path

NAME = "mura"
SPLITS = {"train": "train", "valid": "val"}
STUDY = r"MURA-v1\.1/((train|valid)/(XR_[A-Z]+)/patient(\d+)/(study\d+)_(positive|negative)/)"
STUDY_PATH, IMAGE_PATH = re.compile(STUDY), re.compile(STUDY + r"((?:\._)?image\d+\.png)")
EXPECTED_FORM = "MURA-v1.1/{}/XR_<PART>/patient<number>/study<number>_<positive or negative>/"
ADVICE = "download the file again"


def records(root: Path) -> list[Record]:
    """One record per row of the image lists; label `abnormal` 0 or 1, split "train" or "val" (valid).

    `root` is MURA-v1.1 or the folder that contains it. MURA has no views. `name` contains the body part, and a keyed
    hash instead of the patient's number. Rows of files such as `._image1.png`, which macOS creates, are skipped.

    Raises DatasetError, which names the line and never the path, for a row of another form, an image with two rows, a
    study without a label, a label that contradicts the name of the study's folder, or a patient in both lists.
    """
    folder = find_distribution(root, "train_image_paths.csv", ("MURA-v1.1",))
    pseudonyms, unique = Pseudonyms(NAME), UniqueRows()
    found = []
    for directory, split in SPLITS.items():
        labels = _labels(folder / f"{directory}_labeled_studies.csv", directory)
        table = folder / f"{directory}_image_paths.csv"
        for line, row in read_table(table, ("path",), header=False):
            match = IMAGE_PATH.fullmatch(row["path"].strip())
            if not match or match[2] != directory:
                raise DatasetError(
                    f"{table}, line {line}: expected {EXPECTED_FORM.format(directory)}image<number>.png; {ADVICE}"
                )
            if match[7].startswith("._"):
                continue
            study, part, number, file = match.group(1, 3, 4, 7)
            image, patient = study + file, pseudonyms.patient(number)
            if study not in labels:
                raise DatasetError(
                    f"{table}, line {line}: this study has no label in {directory}_labeled_studies.csv; "
                    "download both files again"
                )
            unique.check(image, patient, split, table, line)
            found.append(
                Record(
                    path=folder / image,
                    dataset=NAME,
                    patient=f"{NAME}:{patient}",
                    view="",
                    split=split,
                    labels={"abnormal": labels[study]},
                    study=f"{NAME}:{patient}/{part}/{match[5]}",
                    name=relative_path(folder / image, root).replace(f"patient{number}", patient),
                    body_part=part.removeprefix("XR_").lower(),
                )
            )
    return found


def _labels(table: Path, directory: str) -> dict[str, float]:
    """1 (abnormal) or 0 by study folder."""
    labels: dict[str, float] = {}
    for line, row in read_table(table, ("path", "label"), header=False):
        match = STUDY_PATH.fullmatch(row["path"].strip())
        if not match or match[2] != directory:
            raise DatasetError(f"{table}, line {line}: expected {EXPECTED_FORM.format(directory)},<0 or 1>; {ADVICE}")
        if row["label"].strip() != str(int(match[6] == "positive")):
            raise DatasetError(f"{table}, line {line}: the label contradicts the study folder's name; {ADVICE}")
        if match[1] in labels:
            raise DatasetError(f"{table}, line {line}: this study already has a label; keep one row per study")
        labels[match[1]] = float(match[6] == "positive")
    return labels
