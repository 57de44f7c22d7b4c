"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 as distributed on PhysioNet.

    mimic-cxr-2.0.0-metadata.csv.gz, -split.csv.gz, -chexpert.csv.gz     (release 2.1.0 keeps these names)
    files/p10/p<subject>/s<study>/<dicom>.jpg

377,110 images of 65,379 patients and 227,835 studies, of which 227,827 have labels; 368,960 images in train,
2,991 in validate, 5,159 in test. Source: Johnson et al., arXiv:1901.07042;
https://physionet.org/content/mimic-cxr-jpg. Not read: the NegBio labels and the radiologists' labels of 2.1.0.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from c2l_models.errors import DatasetError

from .observations import NAMES, observations
from .pseudonym import Pseudonyms
from .record import OneRowEach, Record, check_match, constants, read_table

NAME = "mimic_cxr"
RELEASES = ("2.1.0", "2.0.0")
SPLITS = {"train": "train", "validate": "val", "test": "test"}
NUMBER = re.compile(r"\d{8}")
NOT_LABELLED: Mapping[str, float] = {}
DICOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


def records(root: Path) -> list[Record]:
    """One record a row of the metadata; split "train", "val" (validate) or "test".

    Labels are those of the image's study by the CheXpert labeller: 1, 0, -1 (uncertain), or absent. The tables
    may be unzipped. Patients and studies are keyed hashes, also in `name`, where the DICOM id stays.

    Raises DatasetError, naming the line and never an id, if metadata and split do not list the same images once
    each, for a malformed row, for a patient in two splits, or if the labels are of none of the studies.
    """
    splits = _splits(_table(root, "split"))
    labelled, table = _table(root, "chexpert"), _table(root, "metadata")
    labels = _labels(labelled)
    views = constants()["views"]
    pseudonyms, once = Pseudonyms(NAME), OneRowEach()
    found, studies = [], []
    for line, row in read_table(table, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        dicom, subject, study = row["dicom_id"], row["subject_id"], row["study_id"]
        if not (DICOM_ID.fullmatch(dicom) and NUMBER.fullmatch(subject) and NUMBER.fullmatch(study)):
            raise DatasetError(
                f"{table}, line {line}: dicom_id is not five groups of eight hexadecimal digits, or subject_id or "
                "study_id no number of eight digits; fetch the file again"
            )
        if dicom not in splits:
            raise DatasetError(f"{table}, line {line}: an image that the split file does not list; fetch both again")
        studies.append(study)
        who, exam = pseudonyms.patient(subject), pseudonyms.study(study)
        once.check(dicom, who, splits[dicom], table, line)
        found.append(
            Record(
                path=root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg",
                dataset=NAME,
                patient=f"{NAME}:{who}",
                view=row["ViewPosition"] if row["ViewPosition"] in views else "",
                split=splits[dicom],
                labels=labels.get(study, NOT_LABELLED),
                study=f"{NAME}:{exam}",
                name=f"files/{who}/{exam}/{dicom}.jpg",
            )
        )
    if more := len(splits) - len(found):
        raise DatasetError(f"{table} lacks {more} images that the split file lists; fetch both again")
    check_match(labelled, labels, studies)
    return found


def _table(root: Path, kind: str) -> Path:
    """The table of this kind, of the newest release there is, zipped as distributed or unzipped."""
    names = [f"mimic-cxr-{release}-{kind}.csv{zipped}" for release in RELEASES for zipped in (".gz", "")]
    return next((root / name for name in names if (root / name).is_file()), root / names[-2])


def _splits(table: Path) -> dict[str, str]:
    """The split of each DICOM id."""
    splits: dict[str, str] = {}
    for line, row in read_table(table, ("dicom_id", "split")):
        if row["split"] not in SPLITS:
            raise DatasetError(f"{table}, line {line}: split is none of {', '.join(SPLITS)}; fetch the file again")
        if row["dicom_id"] in splits:
            raise DatasetError(f"{table}, line {line}: an image that has a split already; keep one row for each image")
        splits[row["dicom_id"]] = SPLITS[row["split"]]
    return splits


def _labels(table: Path) -> dict[str, Mapping[str, float]]:
    """The labels of each study."""
    labels: dict[str, Mapping[str, float]] = {}
    for line, row in read_table(table, ("study_id", *NAMES)):
        if not NUMBER.fullmatch(row["study_id"]):
            raise DatasetError(f"{table}, line {line}: study_id is no number of eight digits; fetch the file again")
        if row["study_id"] in labels:
            raise DatasetError(f"{table}, line {line}: a study that has labels already; keep one row for each study")
        labels[row["study_id"]] = observations(row, table, line)
    return labels
