"""`dataset.toml`: a folder describes itself; errors state what was expected and found."""

import re
import tomllib
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets import folder
from c2l_models.training.datasets.adapters import described_data_sets, find_description
from c2l_models.training.datasets.description import Description, load_description
from c2l_models.training.datasets.pseudonym import patient_key, pseudonym

FULL = """
name = "my_hands"
title = "Hands"
license = "CC0-1.0"
citation = "Nobody, 2020"
url = "https://example.org"
body_part = "hand"
table = "films.csv"
label_columns = ["fracture"]
pretraining_only = "new/*"

[columns]
path = "file"
patient = "subject"
source = "clinic"

[labels]
left = ["*L.png", "*-left.png"]

[splits]
train = ["a/*", "new/*"]
test = "b/*"
"""


def write_patient(path: Path, patient: str) -> None:
    """A DICOM file without pixels."""
    pydicom = pytest.importorskip("pydicom")
    film = pydicom.Dataset()
    film.SOPClassUID, film.SOPInstanceUID, film.PatientID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3", patient
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    pydicom.dcmwrite(path, film, enforce_file_format=True)


def test_a_patient_in_two_splits_is_refused_without_a_table_too(tmp_path):
    for path, patient in (("a/1.dcm", "7"), ("a/2.dcm", "7"), ("b/3.dcm", "8")):
        write_patient(tmp_path / path, patient)
    description = describe(tmp_path, 'name = "mine"\n[splits]\ntrain = "a/*"\ntest = "b/*"')
    assert [record.split for record in folder.records(tmp_path, description)] == ["train", "train", "test"]
    write_patient(tmp_path / "b/4.dcm", "7")
    with pytest.raises(DatasetError, match="found a patient with images in train and in test"):
        folder.records(tmp_path, description)


def describe(root: Path, text: str = FULL) -> Description:
    (root / "dataset.toml").write_text(text)
    return load_description(root / "dataset.toml")


def write_table(root: Path, *rows: str, header: str = "file,subject,clinic,fracture,age") -> None:
    (root / "films.csv").write_text("\n".join([header, *rows]))


def test_columns_labels_and_splits(tmp_path):
    write_table(tmp_path, "a/1L.png,7,north,1,71", "a/2R.png,7,,,", "b/3-left.png,8,south,0,")
    description = describe(tmp_path)
    first, second, third = folder.records(tmp_path, description)
    assert [r.dataset for r in (first, second, third)] == ["my_hands"] * 3
    assert first.patient == second.patient == "my_hands:" + pseudonym("patient 7", patient_key())
    assert third.patient == "my_hands:" + pseudonym("patient 8", patient_key())
    assert [r.split for r in (first, second, third)] == ["train", "train", "test"]
    assert [r.source for r in (first, second, third)] == ["my_hands/north", "", "my_hands/south"]
    assert (first.labels, third.labels) == ({"fracture": 1.0, "left": 1.0}, {"fracture": 0.0, "left": 1.0})
    assert second.labels["left"] == 0.0
    assert {r.body_part for r in (first, second, third)} == {"hand"}
    assert description.facts() == {
        "title": "Hands",
        "license": "CC0-1.0",
        "citation": "Nobody, 2020",
        "url": "https://example.org",
    }


def test_public_ids_are_kept_and_headers_are_not_read(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.preamble = bytes(128)
    dataset.PatientID, dataset.ViewPosition = "Jane", "LL"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset)
    (tmp_path / "labels.csv").write_text("path,patient,study\nb.png,7,s1\na.dcm,,\n")
    with_id, without = folder.records(tmp_path, Description("open", public_patient_ids=True))
    assert (with_id.patient, with_id.study) == ("open:7", "open:7/s1")
    assert (without.patient, without.study, without.view) == ("open:a.dcm", "", "LL")
    (tmp_path / "labels.csv").write_text("path,patient\nb.png,Jane Doe\n")
    with pytest.raises(DatasetError, match="line 2: patient must be empty, or at most 40 letters") as caught:
        folder.records(tmp_path, Description("open", public_patient_ids=True))
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", r"dataset\.toml is not valid TOML in UTF-8: .*; correct the file"),
        ("title = 'x'", "name: expected a name such as my_hospital, found 'nothing'"),
        ("name = 'My films'", "name: expected lower-case letters, digits and underscores .*, found 'My films'"),
        ("name = 7", "name: expected text, found 7"),
        ("name = 'a'\nlicence = 'x'", "the file: expected keys among name, title, license.*, found licence"),
        ("name = 'a'\nbody_part = 'toe'", "body_part: expected one of chest, .*, found 'toe'"),
        ("name = 'a'\n[splits]\nvalid = '*'", "splits: expected keys among train, val, train_val, test, found valid"),
        ("name = 'a'\nlabels = ['x']", r"labels: expected a table, found \['x'\]"),
        ("name = 'a'\n[labels]\nx = [1]", r"labels\.x: expected text, found 1"),
        ("name = 'a'\n[columns]\nsubject = 'x'", "columns: expected keys among path, patient.*, found subject"),
        ("name = 'a'\npublic_patient_ids = 'yes'", "public_patient_ids: expected true or false, found 'yes'"),
        ("name = 'a'\npretraining_only = []", "pretraining_only: expected text, or a list of texts, found"),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        describe(tmp_path, text)


@pytest.mark.parametrize(
    ("row", "header", "message"),
    [
        ("c/1.png,7,north,1,2", None, "expected each image to match the patterns of one split, found .* matches none"),
        ("a/1.png,7,my clinic,1,2", None, r"films\.csv, line 2: source must be empty, or at most 40 letters"),
        ("a/1.png,7,1,2", "file,subject,fracture,age", r"films\.csv has no column clinic"),
        ("a/1.png,7,north,1", "file,subject,clinic,age", r"films\.csv has no column fracture"),
    ],
)
def test_tables_that_contradict_the_description_are_refused(tmp_path, row, header, message):
    write_table(tmp_path, row, **({"header": header} if header else {}))
    description = describe(tmp_path)
    with pytest.raises(DatasetError, match=message) as caught:
        folder.records(tmp_path, description)
    assert "my clinic" not in str(caught.value)


@pytest.mark.parametrize("key", ["table = 'film.csv'", "label_columns = ['fracture']", "columns.patient = 'subject'"])
def test_a_table_that_is_described_must_exist(tmp_path, key):
    (tmp_path / "a.png").touch()
    assert len(folder.records(tmp_path, describe(tmp_path, "name = 'mine'\ntable = 'labels.csv'"))) == 1
    with pytest.raises(DatasetError, match=r"(film|labels)\.csv is missing"):
        folder.records(tmp_path, describe(tmp_path, f"name = 'mine'\n{key}"))


def test_a_label_of_a_column_is_not_replaced_by_one_of_patterns(tmp_path):
    (tmp_path / "labels.csv").write_text("path,fracture\na.png,1\n")
    with pytest.raises(DatasetError, match=r"found fracture in both; remove one"):
        folder.records(tmp_path, describe(tmp_path, "name = 'mine'\n[labels]\nfracture = 'b*'"))


def test_names_lead_to_descriptions(tmp_path, monkeypatch):
    assert find_description("chestxray14", tmp_path) is None
    assert find_description("folder", tmp_path) is None
    assert find_description("shoulder_implants", tmp_path).name == "shoulder_implants"
    (tmp_path / "apart.toml").write_text("name = 'apart'")
    monkeypatch.chdir(tmp_path)
    for name in ("apart.toml", "./apart.toml", f"{tmp_path}//apart.toml"):
        assert find_description(name, tmp_path).name == "apart"
    with pytest.raises(DatasetError, match=r"unknown data set my_hands; choose from chestxray14, .* or describe the"):
        find_description("my_hands", tmp_path)
    description = describe(tmp_path)
    assert find_description("my_hands", tmp_path) == find_description("folder", tmp_path) == description
    with pytest.raises(DatasetError, match="name: expected your_hands, found my_hands; give my_hands="):
        find_description("your_hands", tmp_path)
    describe(tmp_path, "name = 'mura'")
    with pytest.raises(DatasetError, match="mura is another data set's name; choose another name"):
        find_description("folder", tmp_path)


def test_each_shipped_description_has_its_files_name():
    assert described_data_sets() == ["shoulder_implants"]
    for name in described_data_sets():
        description = find_description(name, Path())
        assert description.name == name
        assert set(description.facts()) >= {"title", "license", "citation", "url"}


def test_the_example_of_the_docs_is_read(tmp_path, repository):
    page = (repository / "docs" / "pretraining.md").read_text()
    (text,) = re.findall(r"```toml\n(name = .*?)```", page, flags=re.DOTALL)
    description = describe(tmp_path, text)
    assert set(tomllib.loads(text)) == {key.name for key in fields(Description)} - {"public_patient_ids"}
    write_table(tmp_path, "2020/1_L.png,7,north,1", "2021/2.png,8,,0", header="file,subject,clinic,fracture")
    first, second = folder.records(tmp_path, description)
    assert (first.split, second.split) == ("train", "test")
    assert (first.labels, second.labels) == ({"fracture": 1.0, "left": 1.0}, {"fracture": 0.0, "left": 0.0})


def test_real_shoulders(real_data):
    root = real_data / "shoulder-implants"
    found = folder.records(root, find_description("shoulder_implants", root))
    makers = [[name for name, value in r.labels.items() if value] for r in found]
    assert Counter(map(tuple, makers)) == {("Cofield",): 83, ("Depuy",): 294, ("Tornier",): 71, ("Zimmer",): 149}
    assert all(r.path.name.startswith(maker) for r, (maker,) in zip(found, makers, strict=True))
    assert found[0].patient == "shoulder_implants:images/Cofield.1.jpg"
