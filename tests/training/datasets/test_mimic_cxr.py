"""MIMIC-CXR-JPG: a miniature of its layout."""

import re
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS

A = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
B = "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962"
C = "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab"
D = "e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c"
METADATA_HEADER = [
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
]  # fmt: skip
REST = ["3056", "2544", "21800506", "213014.531", "CHEST (PA AND LAT)", "postero-anterior", "Erect"]
METADATA = [
    [A, "10000032", "50414267", "CHEST (PA AND LAT)", "PA", *REST],
    [B, "10000032", "50414267", "CHEST, SAID TO BE", "LATERAL", *REST],
    [C, "11000032", "53189527", "", "AP AXIAL", *REST],
    [D, "19999987", "58621812", "", "left, standing", *REST],
]
SPLIT = [
    [A, "50414267", "10000032", "train"],
    [B, "50414267", "10000032", "train"],
    [C, "53189527", "11000032", "validate"],
    [D, "58621812", "19999987", "test"],
]
LABELS_HEADER = [
    "subject_id", "study_id", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices",
]  # fmt: skip
LABELS = [
    ["10000032", "50414267", "", "", "", "-1.0", "", "", "", "", "", "1.0", "", "", "0.0", ""],
    ["11000032", "53189527", "", "", "", "", "", "", "", "", "1.0", "", "", "", "", ""],
]  # the study of D has no labels
EXPECTED = [  # subject, study, dicom, view, split, labels
    ("10000032", "50414267", A, "PA", "train", {"Edema": -1, "Pneumothorax": 0, "Pleural Effusion": 1}),
    ("10000032", "50414267", B, "LATERAL", "train", {"Edema": -1, "Pneumothorax": 0, "Pleural Effusion": 1}),
    ("11000032", "53189527", C, "AP AXIAL", "val", {"No Finding": 1}),
    ("19999987", "58621812", D, "", "test", {}),
]


@pytest.fixture
def mimic(tmp_path, write_csv):
    """Writes the three tables and returns their folder."""

    def write(metadata=METADATA, split=SPLIT, labels=LABELS, name="mimic-cxr-2.0.0-{}.csv.gz", bom=False) -> Path:
        root = tmp_path / "with a space"
        write_csv(root / name.format("metadata"), METADATA_HEADER, *metadata, bom=bom)
        write_csv(root / name.format("split"), ["dicom_id", "study_id", "subject_id", "split"], *split, bom=bom)
        write_csv(root / name.format("chexpert"), LABELS_HEADER, *labels, bom=bom)
        return root

    return write


@pytest.mark.filterwarnings("ignore:.*does not list 1 of 4 images")
@pytest.mark.parametrize("name", ["mimic-cxr-2.0.0-{}.csv.gz", "mimic-cxr-2.0.0-{}.csv", "mimic-cxr-2.1.0-{}.csv.gz"])
def test_mimic_reads_the_distribution(mimic, hashed, name):
    root = mimic(name=name, bom=name.endswith(".csv"))
    found = ADAPTERS["mimic_cxr"](root)
    for record, (subject, study, dicom, view, split, labels) in zip(found, EXPECTED, strict=True):
        patient, exam = hashed(f"mimic_cxr patient {subject}"), hashed(f"mimic_cxr study {study}")
        assert record.path == root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        assert (record.dataset, record.view, record.split, dict(record.labels)) == ("mimic_cxr", view, split, labels)
        assert list(record.labels) == [name for name in ORDER if name in labels]
        assert (record.patient, record.study) == (f"mimic_cxr:{patient}", f"mimic_cxr:{exam}")
        assert record.name == f"files/{patient}/{exam}/{dicom}.jpg"
        shown = record.name + record.patient + record.study
        assert not any(number in shown for row in EXPECTED for number in row[:2])


ORDER = ["No Finding", "Edema", "Pneumothorax", "Pleural Effusion"]  # CheXpert's order, not this table's


def changed(rows: list[list[str]], row: int, column: int, value: str) -> list[list[str]]:
    rows = [list(r) for r in rows]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": SPLIT[:3]}, r"metadata.*, line 5: this image is not in the split file; download both"),
        ({"metadata": METADATA[:3]}, "metadata.* lacks 1 images of the split file"),
        (
            {"metadata": [*METADATA, METADATA[1]]},
            r"metadata.*, line 6: same image as in .*metadata.*, line 3; keep one",
        ),
        ({"split": [*SPLIT, SPLIT[0]]}, "split.*, line 6: this image already has a split"),
        ({"labels": [*LABELS, LABELS[0]]}, "chexpert.*, line 4: this study already has labels"),
        (
            {"split": changed(SPLIT, 1, 3, "test")},
            "metadata.*, line 3: this patient is in split test here, but in split train in",
        ),
        (
            {"split": changed(SPLIT, 1, 3, "dev")},
            "split.*, line 3: expected split train, validate, test, found another",
        ),
        ({"labels": changed(LABELS, 1, 1, "s53189527")}, "chexpert.*, line 3: expected a study_id of eight digits"),
        (
            {"labels": [[row[0], f"6{row[1][1:]}", *row[2:]] for row in LABELS]},
            "chexpert.* lists none of the 4 images; download all tables again",
        ),
        ({"labels": []}, "chexpert.* lists none of the 4 images"),
        (
            {"labels": changed(LABELS, 1, 5, "2.0")},
            "chexpert.*, line 3: expected each observation to be 1, 0, -1 or blank",
        ),
        (
            {"metadata": changed(METADATA, 0, 1, "1000003")},
            "metadata.*, line 2: .* and a subject_id and a study_id of eight digits",
        ),
        ({"metadata": changed(METADATA, 0, 0, "../" + A)}, "metadata.*, line 2: expected a dicom_id of five groups"),
    ],
)
def test_mimic_refuses_tables_that_do_not_agree_and_quotes_no_id(mimic, change, message):
    root = mimic(**change)
    with pytest.raises(DatasetError, match=message) as caught:
        ADAPTERS["mimic_cxr"](root)
    assert not re.search(r"1000003|5041426|5318952|19999987|[0-9a-f]{8}-", str(caught.value))


def test_mimic_tells_how_many_images_stay_without_labels(mimic):
    root = mimic(labels=LABELS[:1])
    with pytest.warns(UserWarning, match=r"chexpert\.csv\.gz does not list 2 of 4 images"):
        found = ADAPTERS["mimic_cxr"](root)
    assert [len(record.labels) for record in found] == [3, 3, 0, 0]


@pytest.mark.parametrize("kind", ["metadata", "split", "chexpert"])
def test_mimic_names_the_absent_table_as_it_is_distributed(mimic, kind):
    root = mimic()
    (root / f"mimic-cxr-2.0.0-{kind}.csv.gz").unlink()
    with pytest.raises(DatasetError, match=rf"mimic-cxr-2\.0\.0-{kind}\.csv\.gz is missing"):
        ADAPTERS["mimic_cxr"](root)
