"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 as distributed on PhysioNet.

    mimic-cxr-2.0.0-metadata.csv.gz, -split.csv.gz, -chexpert.csv.gz     (release 2.1.0 keeps these names)
    files/p10/p<subject>/s<study>/<dicom>.jpg

377,110 images of 65,379 patients and 227,835 studies, of which 227,827 have labels; 368,960 images in train,
2,991 in validate, 5,159 in test. Source: Johnson et al., arXiv:1901.07042;
https://physionet.org/content/mimic-cxr-jpg. The NegBio labels and the radiologists' labels of 2.1.0 are not used.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from c2l_models.errors import DatasetError

from .constants import constants
from .label_tables import UniqueRows, check_coverage, read_table
from .observations import NAMES, observations
from .pseudonym import Pseudonyms
from .record import Record

NAME = "mimic_cxr"
RELEASES = ("2.1.0", "2.0.0")
SPLITS = {"train": "train", "validate": "val", "test": "test"}
NUMBER = re.compile(r"\d{8}")
NO_LABELS: Mapping[str, float] = {}
DICOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


def records(root: Path) -> list[Record]:
    """One record per row of the metadata; split "train", "val" (validate) or "test".

    An image has the labels of its study from the CheXpert labeller: 1, 0, -1 (uncertain), or absent. The tables may be
    gzipped or not. Patients and studies are keyed hashes, also in `name`, which keeps the DICOM id.

    Raises DatasetError, which names the line and never an id, if the metadata and the split file do not list the same
    images, if an image is listed twice, if a row is malformed, if a patient is in two splits, or if no study has
    labels.
    """
    splits = _splits(_table(root, "split"))
    label_table, table = _table(root, "chexpert"), _table(root, "metadata")
    labels = _labels(label_table)
    views = constants()["views"]
    pseudonyms, unique = Pseudonyms(NAME), UniqueRows()
    found, studies = [], []
    for line, row in read_table(table, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        dicom, subject, study = row["dicom_id"], row["subject_id"], row["study_id"]
        if not (DICOM_ID.fullmatch(dicom) and NUMBER.fullmatch(subject) and NUMBER.fullmatch(study)):
            raise DatasetError(
                f"{table}, line {line}: expected a dicom_id of five groups of eight hexadecimal digits, and a "
                "subject_id and a study_id of eight digits; download the file again"
            )
        if dicom not in splits:
            raise DatasetError(f"{table}, line {line}: this image is not in the split file; download both files again")
        studies.append(study)
        patient, hashed_study = pseudonyms.patient(subject), pseudonyms.study(study)
        unique.check(dicom, patient, splits[dicom], table, line)
        found.append(
            Record(
                path=root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg",
                dataset=NAME,
                patient=f"{NAME}:{patient}",
                view=row["ViewPosition"] if row["ViewPosition"] in views else "",
                split=splits[dicom],
                labels=labels.get(study, NO_LABELS),
                study=f"{NAME}:{hashed_study}",
                name=f"files/{patient}/{hashed_study}/{dicom}.jpg",
                body_part="chest",
            )
        )
    if missing := len(splits) - len(found):
        raise DatasetError(f"{table} lacks {missing} images of the split file; download both files again")
    check_coverage(label_table, labels, studies)
    return found


def _table(root: Path, kind: str) -> Path:
    """The table of this kind, from the newest release in the folder, gzipped or not."""
    names = [f"mimic-cxr-{release}-{kind}.csv{suffix}" for release in RELEASES for suffix in (".gz", "")]
    return next((root / name for name in names if (root / name).is_file()), root / names[-2])


def _splits(table: Path) -> dict[str, str]:
    """Split by DICOM id."""
    splits: dict[str, str] = {}
    for line, row in read_table(table, ("dicom_id", "split")):
        if row["split"] not in SPLITS:
            raise DatasetError(
                f"{table}, line {line}: expected split {', '.join(SPLITS)}, found another; download the file again"
            )
        if row["dicom_id"] in splits:
            raise DatasetError(f"{table}, line {line}: this image already has a split; keep one row per image")
        splits[row["dicom_id"]] = SPLITS[row["split"]]
    return splits


def _labels(table: Path) -> dict[str, Mapping[str, float]]:
    """Labels by study."""
    labels: dict[str, Mapping[str, float]] = {}
    for line, row in read_table(table, ("study_id", *NAMES)):
        if not NUMBER.fullmatch(row["study_id"]):
            raise DatasetError(f"{table}, line {line}: expected a study_id of eight digits; download the file again")
        if row["study_id"] in labels:
            raise DatasetError(f"{table}, line {line}: this study already has labels; keep one row per study")
        labels[row["study_id"]] = observations(row, table, line)
    return labels
