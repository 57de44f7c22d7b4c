"""The adapters: made-up layouts, and the real folders against their published counts."""

import csv
import hashlib
import math
import stat
from collections import Counter
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training import datasets
from c2l_models.training.datasets import ADAPTERS, label_names
from c2l_models.training.datasets.pseudonym import key_path, patient_key, pseudonym

NIH_ROWS = [
    ["00000001_000.png", "No Finding", "1", "PA"],
    ["00000001_001.png", "Mass|Hernia", "1", "AP"],
    ["00000023_000.png", "Pleural_Thickening", "23", "PA"],
]


def write_csv(path: Path, *rows: list[str]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def nih(root: Path, rows=NIH_ROWS, train_val=("00000001_000.png", "00000001_001.png"), test=("00000023_000.png",)):
    header = ["Image Index", "Finding Labels", "Patient ID", "View Position"]
    write_csv(root / "Data_Entry_2017_v2020.csv", header, *rows)
    (root / "train_val_list.txt").write_text("\n".join(train_val) + "\n")
    (root / "test_list.txt").write_text("\n".join(test))  # the official one ends without a newline
    for folder, name in (("images_001", NIH_ROWS[0][0]), ("images_012", NIH_ROWS[2][0])):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "images" / name).touch()
    return root


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("key") / "deep" / "patient.key"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


def test_chestxray14_reads_the_distribution(tmp_path):
    first, second, third = ADAPTERS["chestxray14"](nih(tmp_path))
    assert first.path == tmp_path / "images_001/images/00000001_000.png"
    assert second.path == tmp_path / "images/00000001_001.png"  # not on disk: a record all the same
    assert third.path == tmp_path / "images_012/images/00000023_000.png"
    assert [(r.patient, r.view, r.split) for r in (first, second, third)] == [
        ("chestxray14:00000001", "PA", "train_val"),
        ("chestxray14:00000001", "AP", "train_val"),
        ("chestxray14:00000023", "PA", "test"),
    ]
    assert set(first.labels.values()) == {0.0}
    assert {name for name, value in second.labels.items() if value == 1} == {"Mass", "Hernia"}
    assert tuple(second.labels) == label_names("chestxray14")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_val": ["00000001_000.png"]}, "neither official list: 00000001_001.png"),
        ({"test": ["00000023_000.png", "00000001_001.png"]}, "both official lists: 00000001_001.png"),
        ({"test": ["00000023_000.png", "00000099_000.png"]}, "listed, but not in .*: 00000099_000.png"),
        (
            {"train_val": ["00000001_000.png"], "test": ["00000001_001.png", "00000023_000.png"]},
            "patients in more than one split: chestxray14:00000001",
        ),
        ({"rows": [["00000001_000.png", "Mass|Cough", "1", "PA"], *NIH_ROWS[1:]]}, "line 2: .*Cough"),
        ({"rows": [["00000001_000.png", "Mass", "one", "PA"], *NIH_ROWS[1:]]}, "line 2: .*'one'"),
        ({"rows": [NIH_ROWS[0], *NIH_ROWS]}, "more than once: 00000001_000.png"),
        ({"rows": [["00000001_000.png", "Mass"], *NIH_ROWS[1:]]}, "line 2: wanted 4 fields"),
    ],
)
def test_chestxray14_refuses_lists_and_rows_that_do_not_agree(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["chestxray14"](nih(tmp_path, **change))


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"])
def test_chestxray14_names_an_absent_file(tmp_path, name):
    (nih(tmp_path) / name).unlink()
    with pytest.raises(DatasetError, match=name):
        ADAPTERS["chestxray14"](tmp_path)


def test_a_missing_column_and_another_encoding_are_refused(tmp_path):
    write_csv(tmp_path / "labels.csv", ["image", "subject"])
    with pytest.raises(DatasetError, match="no column side, kl_grade, split"):
        ADAPTERS["knee_kl"](tmp_path)
    (tmp_path / "labels.csv").write_bytes("path\nfilm é.png".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        ADAPTERS["folder"](tmp_path)


def test_knee_kl_reads_grades(tmp_path):
    header = ["image", "subject", "side", "kl_grade", "split"]
    write_csv(tmp_path / "labels.csv", header, ["9L.jpg", "9", "L", "4", "val"], ["9R.jpg", "9", "R", "0", "val"])
    left, right = ADAPTERS["knee_kl"](tmp_path)
    assert left.path == tmp_path / "images" / "9L.jpg"
    assert (left.patient, left.view, left.split, left.labels) == ("knee_kl:9", "PA", "val", {"kl_grade": 4.0})
    assert right.labels == {"kl_grade": 0.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["9L.jpg", "9", "L", "5", "val"]], "line 2: kl_grade is '5'"),
        ([["9L.jpg", "9", "L", "1", "dev"]], "line 2: split is 'dev'"),
        (
            [["9L.jpg", "9", "L", "1", "val"], ["9R.jpg", "9", "R", "1", "test"]],
            "more than one split: knee_kl:9",
        ),
        ([["9L.jpg", "9", "L", "1", "val"]] * 2, "more than once: 9L.jpg"),
    ],
)
def test_knee_kl_refuses(tmp_path, rows, message):
    write_csv(tmp_path / "labels.csv", ["image", "subject", "side", "kl_grade", "split"], *rows)
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["knee_kl"](tmp_path)


def write_dicom(path: Path, patient: str, view: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.preamble = bytes(128)
    with pydicom.config.disable_value_validation():
        dataset.PatientID, dataset.ViewPosition = patient, view
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset)


def test_folder_without_labels_finds_images_and_groups_dicom_by_patient(tmp_path, caplog, recwarn):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "deep/a.jpeg", "notes.txt", "README", "store.npy"):
        (tmp_path / name).write_bytes(b"x" * 200)
    write_dicom(tmp_path / "deep" / "c.dcm", "P1", "AP")
    write_dicom(tmp_path / "noextension", "P1", "standing, painful")
    write_dicom(tmp_path / "e.dicom", "P2" * 40, "")  # longer than DICOM allows
    write_dicom(tmp_path / "f.dcm", "", "LL")
    found = {r.path.relative_to(tmp_path).as_posix(): r for r in ADAPTERS["folder"](tmp_path)}
    assert set(found) == {"b.PNG", "deep/a.jpeg", "deep/c.dcm", "noextension", "e.dicom", "f.dcm"}
    assert found["deep/c.dcm"].patient == found["noextension"].patient
    assert len({r.patient for r in found.values()}) == 5
    assert {name: r.view for name, r in found.items() if r.view} == {"deep/c.dcm": "AP", "f.dcm": "LL"}
    assert {r.split for r in found.values()} == {"train"}
    assert caplog.text == ""  # a warning about a value may quote it
    assert len(recwarn) == 0


def test_folder_with_labels_reads_its_columns(tmp_path):
    write_csv(
        tmp_path / "labels.csv",
        ["path", "patient", "view", "split", "nodule", "grade"],
        ["a.png", "7", "PA", "test", "1", "2.5"],
        ["b/c.png", "", "", "", "", "0"],
    )
    first, second = ADAPTERS["folder"](tmp_path)
    assert (first.view, first.split, first.labels) == ("PA", "test", {"nodule": 1.0, "grade": 2.5})
    assert (second.view, second.split, second.labels["grade"]) == ("", "train", 0.0)
    assert math.isnan(second.labels["nodule"])
    assert first.patient == "folder:" + pseudonym("patient 7", patient_key())


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["path"], ["../a.png"], "line 2: path must be"),
        (["path"], ["/a.png"], "line 2: path must be"),
        (["path", "view"], ["a.png", "secret"], "line 2: view must be"),
        (["path", "split"], ["a.png", "secret"], "line 2: split must be"),
        (["path", "report"], ["a.png", "secret"], "line 2: report is not a label"),
        (["path", "mrn"], ["a.png", "4711000"], "line 2: mrn is not a label"),
    ],
)
def test_folder_refuses_what_is_no_code_or_number_and_does_not_quote_it(tmp_path, header, row, message):
    write_csv(tmp_path / "labels.csv", header, row)
    with pytest.raises(DatasetError, match=message) as caught:
        ADAPTERS["folder"](tmp_path)
    assert "secret" not in str(caught.value)


def test_folder_refuses_a_patient_in_two_splits_and_a_path_named_twice(tmp_path):
    table = tmp_path / "labels.csv"
    write_csv(table, ["path", "patient", "split"], ["a.png", "Jane", "train"], ["b.png", "Jane", "test"])
    with pytest.raises(DatasetError, match="more than one split") as caught:
        ADAPTERS["folder"](tmp_path)
    assert "Jane" not in str(caught.value)
    write_csv(table, ["path"], ["a.png"], ["./a.png"])
    with pytest.raises(DatasetError, match=r"more than once: a\.png"):
        ADAPTERS["folder"](tmp_path)
    table.unlink()
    with pytest.raises(DatasetError, match="holds no image"):
        ADAPTERS["folder"](tmp_path)


def test_the_key_is_made_once_for_its_owner_alone(key):
    first = patient_key()
    assert key_path() == key
    assert len(first) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert patient_key() == first
    key.write_bytes(b"short")
    with pytest.raises(DatasetError, match="5 bytes, wanted 32"):
        patient_key()


def test_the_pseudonym_is_hmac_sha256():
    key = bytes(range(32))
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + b"patient 7").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()
    assert pseudonym("patient 7", key) == outer[:16]


def test_label_names():
    assert label_names("chestxray14")[:3] == ("Atelectasis", "Cardiomegaly", "Effusion")
    assert len(label_names("chestxray14")) == 14
    assert label_names("knee_kl") == ("kl_grade",)
    assert set(ADAPTERS) == {"chestxray14", "knee_kl", "folder"}
    with pytest.raises(DatasetError, match="chestxray14, knee_kl"):
        datasets.label_names("chestxray15")


def test_real_chestxray14(real_data):
    found = ADAPTERS["chestxray14"](real_data / "chestxray14")
    assert Counter(r.split for r in found) == {"train_val": 8508, "test": 1492}
    patients = {split: {r.patient for r in found if r.split == split} for split in ("train_val", "test")}
    assert (len(patients["train_val"]), len(patients["test"])) == (2497, 91)
    positives = [sum(r.labels[n] for r in found if r.split == "test") for n in label_names("chestxray14")]
    assert positives == [171, 66, 259, 400, 69, 99, 38, 104, 115, 38, 24, 54, 56, 6]
    assert all(r.path.is_file() for r in found)


def test_real_knee_kl(real_data):
    found = ADAPTERS["knee_kl"](real_data / "knee-kl")
    assert Counter(r.split for r in found) == {"train": 5778, "val": 826, "test": 1656}
    assert len({r.patient for r in found}) == 4130
    assert all(r.path.is_file() for r in found)
