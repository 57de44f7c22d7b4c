"""Stores of miniature private data sets contain no number of a patient or study."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from nobody import folder_of_nobody
from store_helpers import stopped_at

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.constants import label_names
from c2l_models.training.store import store_format
from c2l_models.training.store.prepare import prepare

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
    labels = [[patient, study, *([""] * 14)] for patient, study, _ in ids[1:]]
    write_csv(root / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *OBSERVATIONS], *labels)
    return [*(f"files/p16/p{p}/s{s}/{d}.jpg" for p, s, d in ids), "files/p16/p16100734/s56100144/new.jpg"]


def mura(root: Path, write_csv) -> list[str]:
    studies = [f"train/XR_HAND/patient{n}/study1_positive/" for n in ("116101", "116102", "116103")]
    write_csv(root / "train_image_paths.csv", *([f"MURA-v1.1/{study}image1.png"] for study in studies))
    write_csv(root / "train_labeled_studies.csv", *([f"MURA-v1.1/{study}", "1"] for study in studies))
    for name in ("image_paths", "labeled_studies"):
        (root / f"valid_{name}.csv").touch()
    return [*(f"{study}image1.png" for study in studies), "train/XR_HAND/patient116104/study1_positive/image1.png"]


NUMBERS = {"chexpert": r"6100\d|6101\d", "mimic_cxr": r"1610073\d|5610014\d", "mura": r"11610\d"}


SETS = pytest.mark.parametrize("build", [chexpert, mimic_cxr, mura], ids=lambda build: build.__name__)


def numbers_in(name: str, text: str) -> list[str]:
    """Numbers of the miniature's patients and studies that a text contains."""
    return re.findall(NUMBERS[name], re.sub("[0-9a-f]{64}", "", text))  # a sha256 may contain any digits


def names_and_texts(folder: Path) -> str:
    """The names of all files under a folder and their content, except pixels."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    tables = [pq.read_table(path).to_pylist() for path in files if path.suffix == ".parquet"]
    texts = [path.read_text() for path in files if path.suffix not in (".parquet", ".npy")]
    return json.dumps([[str(path.relative_to(folder)) for path in files], tables, texts], default=str)


@SETS
def test_neither_a_store_nor_the_folder_it_is_built_in_tells_a_number(tmp_path, write_csv, draw, capfd, build):
    name = build.__name__
    root, store = tmp_path / "set", tmp_path / "store"
    good, missing, broken, unlisted = build(root, write_csv)
    draw(root / good, root / unlisted)
    (root / broken).parent.mkdir(parents=True, exist_ok=True)
    (root / broken).write_bytes(b"no image")
    with stopped_at(store_format.pq, "write_table"):
        prepare([(name, root)], store, size=16, workers=1)
    begun = names_and_texts(tmp_path / "store.partial")
    assert "journal" in begun
    assert "no such file" in begun
    report = prepare([(name, root)], store, size=16, workers=1)
    assert (report.images, report.refused) == (1, 3)
    text = names_and_texts(store)
    assert (root / missing).name in text
    assert not numbers_in(name, begun + text + "".join(capfd.readouterr()))


@SETS
@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_what_may_not_be_read_is_refused_without_a_number(tmp_path, monkeypatch, write_csv, draw, capfd, build, mode):
    name = build.__name__
    draw(tmp_path / "a" / "a.png", tmp_path / "a" / "b.jpg")
    prepare([("folder", tmp_path / "a")], tmp_path / "b", 8, 1)  # imports modules that only root may read
    with folder_of_nobody() as folder:
        monkeypatch.setenv("C2L_PATIENT_KEY", str(folder / "key"))
        root = folder / "set"
        good, locked, *_ = build(root, write_csv)
        draw(root / good, root / locked)
        (root / locked).parent.chmod(mode)
        one_of_study = (root / good).parent == (root / locked).parent
        if one_of_study:  # both images are in the locked folder: none can be stored
            with pytest.raises(DatasetError, match="no image could be decoded") as caught:
                prepare([(name, root)], folder / "store", 16, 1)
            text = str(caught.value).replace(str(folder), "") + names_and_texts(folder / "store.partial")
        else:
            assert prepare([(name, root)], folder / "store", 16, 1).images == 1
            text = names_and_texts(folder / "store")
        (root / locked).parent.chmod(0o755)
    assert "cannot be opened: Permission denied" in text
    assert ("folder cannot be read: Permission denied (1)" in text) == (mode == 0 and not one_of_study)
    assert not numbers_in(name, text + "".join(capfd.readouterr()))
