"""From miniatures of the sets that are not public to a store: nothing in it tells a patient's or study's number."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from c2l_models.training.datasets import label_names
from c2l_models.training.prepare import prepare

OBSERVATIONS = list(label_names("chexpert"))
DICOMS = [f"{digit * 8}-4ec4c1f7-34ea26b7-c5f994f8-79ef1962" for digit in "abc"]


def chexpert(root: Path, write_csv) -> list[str]:
    images = [f"train/patient{n}/study{s}/view1_frontal.jpg" for n, s in (("61007", 1), ("61008", 1), ("61009", 2))]
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS]
    rows = [[f"CheXpert-v1.0/{image}", "Female", "61", "Frontal", "AP", *([""] * 14)] for image in images]
    write_csv(root / "train.csv", header, *rows)
    write_csv(root / "valid.csv", header)
    return [*images, "train/patient61010/study1/view1_frontal.jpg"]


def mimic_cxr(root: Path, write_csv) -> list[str]:
    ids = [
        ("16100732", "56100142", DICOMS[0]),
        ("16100732", "56100142", DICOMS[1]),
        ("16100733", "56100143", DICOMS[2]),
    ]
    head = ["dicom_id", "subject_id", "study_id"]
    write_csv(root / "mimic-cxr-2.0.0-metadata.csv", [*head, "ViewPosition"], *([d, p, s, "PA"] for p, s, d in ids))
    write_csv(root / "mimic-cxr-2.0.0-split.csv", [*head, "split"], *([d, p, s, "train"] for p, s, d in ids))
    write_csv(root / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *OBSERVATIONS])
    return [*(f"files/p16/p{p}/s{s}/{d}.jpg" for p, s, d in ids), "files/p16/p16100734/s56100144/new.jpg"]


def mura(root: Path, write_csv) -> list[str]:
    studies = [f"train/XR_HAND/patient{n}/study1_positive/" for n in ("116101", "116102", "116103")]
    write_csv(root / "train_image_paths.csv", *([f"MURA-v1.1/{study}image1.png"] for study in studies))
    write_csv(root / "train_labeled_studies.csv", *([f"MURA-v1.1/{study}", "1"] for study in studies))
    for name in ("image_paths", "labeled_studies"):
        (root / f"valid_{name}.csv").touch()
    return [*(f"{study}image1.png" for study in studies), "train/XR_HAND/patient116104/study1_positive/image1.png"]


NUMBERS = {"chexpert": r"6100\d|6101\d", "mimic_cxr": r"1610073\d|5610014\d", "mura": r"11610\d"}


@pytest.mark.parametrize("build", [chexpert, mimic_cxr, mura], ids=lambda build: build.__name__)
def test_a_store_tells_no_number_of_a_patient_or_study(tmp_path, write_csv, draw, build):
    name = build.__name__
    root = tmp_path / "set"
    good, missing, broken, unlisted = build(root, write_csv)
    draw(root / good, root / unlisted)
    (root / broken).parent.mkdir(parents=True, exist_ok=True)
    (root / broken).write_bytes(b"no image")
    report = prepare([(name, root)], tmp_path / "store", size=16, workers=1, progress=False)
    assert report.images == 1
    assert report.refused >= 2
    index, refused = (pq.read_table(tmp_path / "store" / f"{table}.parquet") for table in ("index", "refused"))
    told = json.dumps([index.to_pylist(), refused.to_pylist()], default=str)
    told += (tmp_path / "store" / "store.json").read_text()
    assert not re.findall(NUMBERS[name], re.sub("[0-9a-f]{64}", "", told))  # a sha256 may hold any digits
    assert (root / missing).name in told
    assert len(index) == 1
