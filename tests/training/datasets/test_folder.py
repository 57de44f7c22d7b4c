"""Any folder: its images are found, `labels.csv` is read, and messages contain no patient data."""

import math
import os
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS
from c2l_models.training.datasets.pseudonym import patient_key, pseudonym


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
    for name in ("b.PNG", "deep/a.jpeg", "notes.txt", "README", "store.npy", "deep/._a.jpeg"):
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


def test_folder_finds_what_links_lead_to_once_and_names_that_lead_nowhere(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for path in (root / "own" / "a.png", elsewhere / "b.png", elsewhere / "deep" / "c.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "another way").symlink_to(root / "own")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "own" / "loop").symlink_to(root / "own" / "loop")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "itself.png").symlink_to(root / "itself.png")
    found = [r.path.relative_to(root).as_posix() for r in ADAPTERS["folder"](root)]
    assert found == ["gone.png", "itself.png", "linked/b.png", "linked/deep/c.png", "own/a.png"]


def test_folder_reads_no_header_in_a_file_filled_with_zeros(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40_000_000))  # would take minutes
    assert [r.path.name for r in ADAPTERS["folder"](tmp_path)] == ["a.dcm"]


def test_folder_passes_over_a_pipe_without_a_suffix(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would block for ever
    (tmp_path / "a.png").touch()
    assert [r.path.name for r in ADAPTERS["folder"](tmp_path)] == ["a.png"]


def test_folder_with_labels_reads_its_columns(tmp_path, write_csv):
    write_csv(
        tmp_path / "labels.csv",
        ["path", "patient", "study", "view", "split", "nodule", "grade"],
        ["a.png", "7", "4711", "PA", "test", "1", "2.5"],
        ["b/c.png", "", "", "", "", "", "0"],
    )
    first, second = ADAPTERS["folder"](tmp_path)
    assert (first.view, first.split, first.labels) == ("PA", "test", {"nodule": 1.0, "grade": 2.5})
    assert (second.view, second.split, second.labels["grade"]) == ("", "train", 0.0)
    assert math.isnan(second.labels["nodule"])
    assert first.patient == "folder:" + pseudonym("patient 7", patient_key())
    assert first.study == "folder:" + pseudonym("study 4711 of patient 7", patient_key())
    assert (second.study, first.name, second.name) == ("", "", "")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["path"], ["../a.png"], "line 2: path must name a file under"),
        (["path"], ["/a.png"], "line 2: path must name a file under"),
        (["path", "view"], ["a.png", "secret"], "line 2: view must be"),
        (["path", "split"], ["a.png", "secret"], "line 2: split must be"),
        (["path", "report"], ["a.png", "secret"], "line 2: report is not a label"),
        (["path", "mrn"], ["a.png", "4711000"], "line 2: mrn is not a label"),
    ],
)
def test_folder_refuses_what_is_no_code_or_number_and_does_not_quote_it(tmp_path, write_csv, header, row, message):
    write_csv(tmp_path / "labels.csv", header, row)
    with pytest.raises(DatasetError, match=message) as caught:
        ADAPTERS["folder"](tmp_path)
    assert "secret" not in str(caught.value)


def test_folder_refuses_a_patient_in_two_splits_and_a_path_named_twice(tmp_path, write_csv):
    table = tmp_path / "labels.csv"
    write_csv(table, ["path", "patient", "split"], ["a.png", "Jane", "train"], ["b.png", "Jane", "test"])
    with pytest.raises(
        DatasetError, match="line 3: this patient is in split test here, but in split train in"
    ) as caught:
        ADAPTERS["folder"](tmp_path)
    assert "Jane" not in str(caught.value)
    write_csv(table, ["path"], ["a.png"], ["./a.png"])
    with pytest.raises(DatasetError, match=r"line 3: same image as in labels\.csv, line 2"):
        ADAPTERS["folder"](tmp_path)
    table.unlink()
    with pytest.raises(DatasetError, match=r"expected images .*, found none"):
        ADAPTERS["folder"](tmp_path)
