"""CheXpert: miniatures of all distributed layouts."""

import re
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
TRAIN = [
    "train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "train/patient00002/study2/view2_lateral.jpg,Female,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "train/patient00003/study1/view1_frontal.jpg,Male,41,Frontal,LL,,,,,,1.0,,,,,,,,",
    "train/patient64540/study1/view1_frontal.jpg,Male,0,Frontal,,,,,,,,,,,,,,,",
]
VALID = [
    "valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"
]
TEST = ["test/patient64741/study1/view2_lateral.jpg,0.0,0.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"]
TEST_HEADER = "Path," + HEADER.partition("AP/PA,")[2]

EXPECTED = [  # path under root, patient, study, view, split, labels
    ("train/patient00001/study1/view1_frontal.jpg", 1, "study1", "AP", "train",
     {"No Finding": 1, "Pneumothorax": 0, "Support Devices": 1}),
    ("train/patient00002/study2/view1_frontal.jpg", 2, "study2", "PA", "train",
     {"Cardiomegaly": -1, "Lung Opacity": 1, "Edema": -1, "Consolidation": -1, "Atelectasis": -1,
      "Pleural Effusion": -1, "Fracture": 1}),
    ("train/patient00002/study2/view2_lateral.jpg", 2, "study2", "LATERAL", "train",
     {"Cardiomegaly": -1, "Lung Opacity": 1, "Edema": -1, "Consolidation": -1, "Atelectasis": -1,
      "Pleural Effusion": -1, "Fracture": 1}),
    ("train/patient00003/study1/view1_frontal.jpg", 3, "study1", "LL", "train", {"Edema": 1}),
    ("train/patient64540/study1/view1_frontal.jpg", 64540, "study1", "", "train", {}),
    ("valid/patient64541/study1/view1_frontal.jpg", 64541, "study1", "AP", "val",
     {"No Finding": 0, "Enlarged Cardiomediastinum": 1, "Cardiomegaly": 1, "Lung Opacity": 1, "Lung Lesion": 0,
      "Edema": 0, "Consolidation": 0, "Pneumonia": 0, "Atelectasis": 0, "Pneumothorax": 0, "Pleural Effusion": 0,
      "Pleural Other": 0, "Fracture": 0, "Support Devices": 0}),
]  # fmt: skip


def chexpert(folder: Path, prefix: str = "CheXpert-v1.0/", train=TRAIN, valid=VALID, mark: str = "") -> Path:
    """Write the label files, without images."""
    folder.mkdir(parents=True)
    for name, rows in (("train.csv", train), ("valid.csv", valid)):
        (folder / name).write_text("\n".join([mark + HEADER, *(prefix + row for row in rows)]) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("below", "prefix", "mark"),
    [
        ("", "CheXpert-v1.0/", ""),
        ("", "CheXpert-v1.0-small/", "\ufeff"),  # saved by a spreadsheet
        ("CheXpert-v1.0-small/", "CheXpert-v1.0-small/", ""),
        ("CheXpert-v1.0/", "CheXpert-v1.0/", ""),
    ],
)
def test_chexpert_reads_either_layout_from_its_folder_or_the_one_above(tmp_path, hashed, below, prefix, mark):
    root = tmp_path / "with a space"
    chexpert(root / below, prefix, mark=mark)
    found = ADAPTERS["chexpert"](root)
    assert [r.path.relative_to(root).as_posix() for r in found] == [below + row[0] for row in EXPECTED]
    for record, (path, number, study, view, split, labels) in zip(found, EXPECTED, strict=True):
        patient = hashed(f"chexpert patient {number}")
        assert (record.dataset, record.view, record.split) == ("chexpert", view, split)
        assert dict(record.labels) == labels
        assert record.patient == f"chexpert:{patient}"
        assert record.study == f"chexpert:{patient}/{study}"
        assert record.name == below + re.sub(r"patient\d+", patient, path)


def test_chexpert_reads_the_batches_of_the_full_size_release(tmp_path, draw):
    chexpert(tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")
    second, fourth = tmp_path / "CheXpert-v1.0 batch 2 (train 1)", tmp_path / "CheXpert-v1.0 batch 4 (train 3)"
    draw(second / "patient00001/study1/view1_frontal.jpg", fourth / "patient00003/study1/view1_frontal.jpg")
    found = ADAPTERS["chexpert"](tmp_path)
    assert found[0].path == second / "patient00001/study1/view1_frontal.jpg"
    assert found[3].path == fourth / "patient00003/study1/view1_frontal.jpg"
    assert found[5].path == tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)" / EXPECTED[5][0]
    assert [r.path.is_file() for r in found] == [True, False, False, True, False, False]
    who = found[0].patient.removeprefix("chexpert:")
    assert found[0].name == f"CheXpert-v1.0 batch 2 (train 1)/{who}/study1/view1_frontal.jpg"
    with pytest.raises(DatasetError, match="is one batch of four; give the folder that contains all batches"):
        ADAPTERS["chexpert"](tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_chexpert_reads_the_test_set_where_it_is_there(tmp_path, hashed, name):
    root = chexpert(tmp_path / "root")
    (root / name).write_text("\n".join([TEST_HEADER, *TEST]))
    last = ADAPTERS["chexpert"](root)[-1]
    assert (last.split, last.view, len(last.labels)) == ("test", "LATERAL", 14)
    assert last.path == root / "test/patient64741/study1/view2_lateral.jpg"
    assert last.patient == "chexpert:" + hashed("chexpert patient 64741")


@pytest.mark.parametrize("prefix", ["CheXpert/", "CheXpert-v1.0/"])
def test_chexpert_reads_one_of_two_test_tables_whatever_its_prefix(tmp_path, prefix):
    root = chexpert(tmp_path / "root")
    (root / "test.csv").write_text("\n".join([TEST_HEADER, *(prefix + row for row in TEST)]))
    (root / "test_labels.csv").write_text("\n".join([TEST_HEADER, *TEST, changed(TEST[0], "view2", "view1")]))
    found = [record for record in ADAPTERS["chexpert"](root) if record.split == "test"]
    assert [record.path for record in found] == [root / "test/patient64741/study1/view2_lateral.jpg"]


def changed(row: str, old: str, new: str) -> str:
    assert old in row
    return row.replace(old, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": [*TRAIN, TRAIN[1]]}, r"train\.csv, line 7: same image as in train\.csv, line 3; keep one row"),
        (
            {"train": [*TRAIN, changed(TRAIN[1], "PA", "AP")]},
            r"train\.csv, line 7: same image as in train\.csv, line 3",
        ),
        (
            {"valid": [changed(VALID[0], "64541", "00002")]},
            r"valid\.csv, line 2: this patient is in split val here, but in split train in train\.csv, line 3",
        ),
        (
            {"train": [TRAIN[0], changed(TRAIN[1], "-1.0,1.0", "U,1.0")]},
            "line 3: expected each observation to be 1, 0, -1 or blank",
        ),
        ({"train": [changed(TRAIN[0], "1.0", "0.7")]}, "line 2: expected each observation to be"),
        (
            {"train": [changed(TRAIN[0], "train/", "valid/")]},
            "line 2: expected a Path of the form CheXpert-v1.0/train/",
        ),
        ({"train": [changed(TRAIN[0], "train/", "../train/")]}, "line 2: expected a Path of the form"),
        ({"train": [changed(TRAIN[0], "patient00001", "Jane Doe")]}, "line 2: expected a Path of the form"),
        ({"train": [TRAIN[0] + ",x"]}, "line 2: expected 19 fields"),
    ],
)
def test_chexpert_refuses_a_row_by_its_line_and_quotes_nothing(tmp_path, change, message):
    root = chexpert(tmp_path / "root", **change)
    with pytest.raises(DatasetError, match=message) as caught:
        ADAPTERS["chexpert"](root)
    assert not re.search(r"00001|00002|64541|Jane", str(caught.value).replace(str(root), ""))


def test_chexpert_names_what_is_missing(tmp_path):
    root = chexpert(tmp_path / "root")
    (root / "valid.csv").unlink()
    with pytest.raises(DatasetError, match=r"valid\.csv is missing"):
        ADAPTERS["chexpert"](root)
    (root / "train.csv").write_text(HEADER.replace(",Edema", "") + "\n")
    with pytest.raises(DatasetError, match="no column Edema"):
        ADAPTERS["chexpert"](root)
    chexpert(tmp_path / "CheXpert-v1.0")
    chexpert(tmp_path / "CheXpert-v1.0-small", "CheXpert-v1.0-small/")
    with pytest.raises(
        DatasetError, match=r"contains the same images twice, in CheXpert-v1\.0 and CheXpert-v1\.0-small"
    ):
        ADAPTERS["chexpert"](tmp_path)
