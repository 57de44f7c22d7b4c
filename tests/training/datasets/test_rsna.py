"""RSNA Pneumonia: miniatures of both stages, and the real folder compared with its published counts."""

import json
from collections import Counter
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets import rsna
from c2l_models.training.datasets.adapters import ADAPTERS

A, B, C, T = (f"{letter * 8}-1111-4222-8333-444444444444" for letter in "abc0")
ROWS = [
    [A, "264.0", "152.0", "213.0", "379.0", "1"],
    [A, "562.0", "152.0", "256.0", "453.0", "1"],
    [B, "", "", "", "", "0"],
    [C, "", "", "", "", "0"],
]
CLASSES = [[A, "Lung Opacity"], [A, "Lung Opacity"], [B, "No Lung Opacity / Not Normal"], [C, "Normal"]]
HEADER = ["patientId", "x", "y", "width", "height", "Target"]


@pytest.fixture
def challenge(tmp_path, write_csv, draw):
    """Writes a stage's tables, all training images except the last, and a test image."""

    def write(stage="stage_2", rows=ROWS, classes=CLASSES) -> Path:
        root = tmp_path / "with a space"
        write_csv(root / f"{stage}_train_labels.csv", HEADER, *rows)
        write_csv(root / f"{stage}_detailed_class_info.csv", ["patientId", "class"], *classes)
        draw(root / f"{stage}_train_images" / f"{A}.dcm", view="AP")
        draw(root / f"{stage}_train_images" / f"{B}.dcm", view="SITTING")
        draw(root / f"{stage}_test_images" / f"{T}.dcm", view="PA")
        draw(root / f"{stage}_test_images" / "no id.dcm")
        (root / f"{stage}_test_images" / f"._{T}.dcm").touch()
        return root

    return write


@pytest.mark.parametrize("stage", ["stage_1", "stage_2"])
def test_rsna_reads_one_record_an_image(challenge, stage):
    root = challenge(stage)
    found = ADAPTERS["rsna"](root)
    assert [(r.path, r.patient, r.study, r.view, r.split, dict(r.labels), r.name) for r in found] == [
        (
            root / f"{stage}_train_images/{A}.dcm",
            f"rsna:{A}",
            f"rsna:{A}",
            "AP",
            "train",
            {"pneumonia": 1, "abnormal": 1},
            "",
        ),
        (
            root / f"{stage}_train_images/{B}.dcm",
            f"rsna:{B}",
            f"rsna:{B}",
            "",
            "train",
            {"pneumonia": 0, "abnormal": 1},
            "",
        ),
        (
            root / f"{stage}_train_images/{C}.dcm",
            f"rsna:{C}",
            f"rsna:{C}",
            "",
            "train",
            {"pneumonia": 0, "abnormal": 0},
            "",
        ),
        (root / f"{stage}_test_images/{T}.dcm", f"rsna:{T}", f"rsna:{T}", "PA", "test", {}, ""),
    ]
    assert [r.path.is_file() for r in found] == [True, True, False, True]


def test_rsna_reads_stage_2_where_both_are_there(challenge):
    root = challenge("stage_1")
    assert challenge("stage_2", rows=ROWS[:3]) == root
    assert {r.path.parent.name for r in ADAPTERS["rsna"](root)} == {"stage_2_train_images", "stage_2_test_images"}


def test_rsna_takes_labels_of_test_images_and_lives_without_classes(challenge, write_csv):
    root = challenge()
    write_csv(root / "stage_2_test_labels.csv", HEADER, [T, "1", "2", "3", "4", "1"])
    (root / "stage_2_detailed_class_info.csv").unlink()
    assert [dict(r.labels) for r in ADAPTERS["rsna"](root)] == [{"pneumonia": v} for v in (1, 0, 0, 1)]


def test_rsna_tells_how_many_images_stay_without_a_class(challenge):
    with pytest.warns(UserWarning, match=r"class_info\.csv does not list 1 of 3 images"):
        found = ADAPTERS["rsna"](challenge(classes=CLASSES[:3]))
    assert [dict(r.labels) for r in found][2:] == [{"pneumonia": 0}, {}]


@pytest.mark.filterwarnings("ignore:.*does not list . of 3 images")
def test_rsna_takes_the_patients_of_chestxray14_from_either_mapping(challenge, write_csv):
    root = challenge()
    expected = ["chestxray14:00001836", f"rsna:{B}", "chestxray14:00001836", f"rsna:{T}"]
    entries = [
        {"img_id": "00001836_010.png", "subset_img_id": A, "subset_group": "", "orig_labels": ["Mass"]},
        {"img_id": "00001836_011.png", "subset_img_id": C, "subset_group": "", "orig_labels": []},
    ]
    mapping = root / "pneumonia-challenge-dataset-mappings_2018.json"
    mapping.write_text(json.dumps(entries))
    assert [r.patient for r in ADAPTERS["rsna"](root)] == expected
    mapping.unlink()
    table = root / "nih_image_index.csv"
    write_csv(table, ["patientId", "Image Index"], [A, "00001836_010.png"], [C, "00001836_011.png"])
    assert [r.patient for r in ADAPTERS["rsna"](root)] == expected
    write_csv(table, ["patientId", "Image Index"], [A, "1836.png"])
    with pytest.raises(
        DatasetError, match=r"nih_image_index\.csv: expected ChestX-ray14 file names .*, found '1836\.png'"
    ):
        ADAPTERS["rsna"](root)
    table.unlink()
    for text in ("{}[", '{"a": 1}', "[1]", '[{"img_id": "00001836_010.png"}]'):
        mapping.write_text(text)
        with pytest.raises(DatasetError, match=r"mappings_2018\.json: expected a JSON list of entries"):
            ADAPTERS["rsna"](root)


def test_rsna_boxes(challenge):
    root = challenge()
    images = root / "stage_2_train_images"
    assert rsna.boxes(root) == {
        images / f"{A}.dcm": [(264, 152, 213, 379), (562, 152, 256, 453)],
        images / f"{B}.dcm": [],
        images / f"{C}.dcm": [],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [*ROWS, ROWS[1]]}, r"train_labels\.csv, line 6: duplicate row; keep one"),
        ({"rows": [*ROWS, ROWS[2]]}, "line 6: duplicate row; keep one"),
        ({"rows": [*ROWS, [A, "", "", "", "", "0"]]}, "line 6: Target differs from an earlier row of this image"),
        (
            {"rows": [*ROWS, ["../../secret", "", "", "", "", "0"]]},
            r"train_labels\.csv, line 6: expected a patientId of the form 0004cfab-",
        ),
        (
            {"classes": [[T, "Normal"]]},
            r"class_info\.csv lists none of the 3 images; download all tables again",
        ),
        ({"rows": [[A, "", "", "", "", "1"]]}, "line 2: expected Target 1 with a box, or Target 0 without a box"),
        ({"rows": [[A, "1", "1", "5", "5", "0"]]}, "line 2: expected Target 1 with a box"),
        ({"rows": [[A, "1", "1", "0", "5", "1"]]}, "line 2: expected Target 1 with a box"),
        ({"rows": [[A, "", "", "", "", "2"]]}, "line 2: expected Target 1 with a box"),
        ({"classes": [[A, "Opacity"]]}, r"class_info\.csv, line 2: expected class Normal, No Lung .*, found 'Opacity'"),
        ({"classes": [*CLASSES, [C, "Lung Opacity"]]}, "line 6: class differs from an earlier row of this image"),
    ],
)
def test_rsna_refuses_rows_that_do_not_agree(challenge, change, message):
    root = challenge(**change)
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["rsna"](root)


def test_rsna_names_the_absent_table(tmp_path):
    with pytest.raises(DatasetError, match=r"stage_2_train_labels\.csv is missing"):
        ADAPTERS["rsna"](tmp_path)


def test_real_rsna(real_data):
    found = ADAPTERS["rsna"](real_data / "rsna-pneumonia")
    labels = [(r.labels["pneumonia"], r.labels["abnormal"]) for r in found]
    assert (labels.count((1, 1)), labels.count((0, 1)), labels.count((0, 0)), len(labels)) == (129, 134, 76, 339)
    assert all(r.path.is_file() and r.patient.startswith("chestxray14:") for r in found)
    assert Counter(r.view for r in found) == {"PA": 172, "AP": 167}
    everywhere = rsna.boxes(real_data / "rsna-pneumonia")
    assert sum(len(boxes) for boxes in everywhere.values()) == 205
    assert {path for path, boxes in everywhere.items() if boxes} == {r.path for r in found if r.labels["pneumonia"]}
    others = {r.patient for r in ADAPTERS["chestxray14"](real_data / "chestxray14")}
    assert {r.patient for r in found} & others  # the overlap that the folder's notes describe
