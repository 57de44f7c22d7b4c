"""ChestX-ray14: a miniature, and the real folder compared with its published counts."""

from collections import Counter
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS
from c2l_models.training.datasets.chestxray14 import boxes
from c2l_models.training.datasets.constants import label_names

NIH_ROWS = [
    ["00000001_000.png", "No Finding", "2", "1", "PA"],
    ["00000001_001.png", "Mass|Hernia", "0", "1", "AP"],
    ["00000023_000.png", "Pleural_Thickening", "0", "23", "PA"],
]


def nih(
    root: Path, write_csv, rows=NIH_ROWS, train_val=("00000001_000.png", "00000001_001.png"), test=("00000023_000.png",)
):
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "View Position"]
    write_csv(root / "Data_Entry_2017_v2020.csv", header, *rows)
    (root / "train_val_list.txt").write_text("\n".join(train_val) + "\n")
    (root / "test_list.txt").write_text("\n".join(test))  # the official list ends without a newline
    for folder, name in (("images_001", NIH_ROWS[0][0]), ("images_012", NIH_ROWS[2][0])):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "images" / name).touch()
    return root


def test_chestxray14_reads_the_distribution(tmp_path, write_csv):
    first, second, third = ADAPTERS["chestxray14"](nih(tmp_path, write_csv))
    assert first.path == tmp_path / "images_001/images/00000001_000.png"
    assert second.path == tmp_path / "images/00000001_001.png"  # missing on disk, but keeps its record
    assert third.path == tmp_path / "images_012/images/00000023_000.png"
    assert [(r.patient, r.view, r.split) for r in (first, second, third)] == [
        ("chestxray14:00000001", "PA", "train_val"),
        ("chestxray14:00000001", "AP", "train_val"),
        ("chestxray14:00000023", "PA", "test"),
    ]
    assert [r.study for r in (first, second, third)] == [
        "chestxray14:00000001/2",
        "chestxray14:00000001/0",
        "chestxray14:00000023/0",
    ]
    assert {r.name for r in (first, second, third)} == {""}
    assert set(first.labels.values()) == {0.0}
    assert {name for name, value in second.labels.items() if value == 1} == {"Mass", "Hernia"}
    assert tuple(second.labels) == label_names("chestxray14")


@pytest.mark.parametrize("name", ["images", "images_002"])
def test_chestxray14_refuses_a_link_that_became_a_file(tmp_path, write_csv, name):
    """As git and zip leave a symbolic link on a disk without links."""
    nih(tmp_path, write_csv)
    (tmp_path / name).write_text(f"/disk/{name}")
    with pytest.raises(DatasetError, match=f"expected folders of images, found a file or a broken link: {name}\\. "):
        ADAPTERS["chestxray14"](tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(DatasetError, match=f"link: {name}\\. "):
        ADAPTERS["chestxray14"](tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_val": ["00000001_000.png"]}, "images in neither official list: 00000001_001.png"),
        ({"test": ["00000023_000.png", "00000001_001.png"]}, "images in both official lists: 00000001_001.png"),
        (
            {"test": ["00000023_000.png", "00000099_000.png"]},
            "in the official lists, but not in Data_Entry_2017_v2020.csv: 00000099_000.png",
        ),
        (
            {"train_val": ["00000001_000.png"], "test": ["00000001_001.png", "00000023_000.png"]},
            "line 3: this patient is in split test here, but in split train_val in Data_Entry_2017_v2020.csv, line 2",
        ),
        (
            {"rows": [["00000001_000.png", "Mass|Cough", "0", "1", "PA"], *NIH_ROWS[1:]]},
            "line 2: unknown finding Cough",
        ),
        (
            {"rows": [["00000001_000.png", "Mass", "0", "one", "PA"], *NIH_ROWS[1:]]},
            "line 2: expected a number as Patient ID, found 'one'",
        ),
        (
            {"rows": [NIH_ROWS[0], *NIH_ROWS]},
            "line 3: same image as in Data_Entry_2017_v2020.csv, line 2; keep one row",
        ),
        ({"rows": [["00000001_000.png", "Mass"], *NIH_ROWS[1:]]}, "line 2: expected 5 fields"),
    ],
)
def test_chestxray14_refuses_lists_and_rows_that_do_not_agree(tmp_path, write_csv, change, message):
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["chestxray14"](nih(tmp_path, write_csv, **change))


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"])
def test_chestxray14_names_an_absent_file(tmp_path, write_csv, name):
    (nih(tmp_path, write_csv) / name).unlink()
    with pytest.raises(DatasetError, match=name):
        ADAPTERS["chestxray14"](tmp_path)


def test_chestxray14_reads_kaggles_table_where_nihs_is_not(tmp_path, write_csv):
    nih(tmp_path, write_csv)
    expected = ADAPTERS["chestxray14"](tmp_path)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"  # the last field has no name
    rows = [[*row[:4], "058Y", "M", row[4], "2682", "2749", "0.143", "0.143", ""] for row in NIH_ROWS]
    write_csv(tmp_path / "Data_Entry_2017.csv", header.split(","), *rows[:1])
    assert ADAPTERS["chestxray14"](tmp_path) == expected
    write_csv(tmp_path / "Data_Entry_2017.csv", header.split(","), *rows)
    (tmp_path / "Data_Entry_2017_v2020.csv").unlink()
    assert ADAPTERS["chestxray14"](tmp_path) == expected


def test_real_chestxray14(real_data):
    found = ADAPTERS["chestxray14"](real_data / "chestxray14")
    assert Counter(r.split for r in found) == {"train_val": 8508, "test": 1492}
    patients = {split: {r.patient for r in found if r.split == split} for split in ("train_val", "test")}
    assert (len(patients["train_val"]), len(patients["test"])) == (2497, 91)
    positives = [sum(r.labels[n] for r in found if r.split == "test") for n in label_names("chestxray14")]
    assert positives == [171, 66, 259, 400, 69, 99, 38, 104, 115, 38, 24, 54, 56, 6]
    assert all(r.path.is_file() for r in found)
    assert len({r.study for r in found}) == 10_000  # each image has its own follow-up number


BOX_HEAD = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]


def test_boxes_are_read_as_they_are_distributed(tmp_path, write_csv):
    """With and without the three commas at the end of a line; findings have the label file's names."""
    table = tmp_path / "BBox_List_2017.csv"
    rows = [["a.png", "Infiltrate", "1.5", "2", "3", "4"], ["b.png", "Mass", "-1", "0", "5", "6", "", "", ""]]
    write_csv(table, BOX_HEAD, *rows)
    assert boxes(table) == [("a.png", "Infiltration", 1.5, 2, 3, 4), ("b.png", "Mass", -1, 0, 5, 6)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a.png", "Mass", "1", "2", "3"], "line 2: expected an image, a finding and four numbers"),
        (["a.png", "Mass", "1", "2", "3", "x"], "four numbers"),
        (["a.png", "Cough", "1", "2", "3", "4"], "unknown finding; expected one of Atelectasis"),
        (["a.png", "Mass", "1024", "2", "3", "4"], "has no area or is outside its image of 1024 x 1024"),
        (["a.png", "Mass", "1", "2", "0", "4"], "outside its image"),
        (["a.png", "Mass", "nan", "2", "3", "4"], "outside its image"),
    ],
)
def test_boxes_that_cannot_be(tmp_path, write_csv, row, message):
    write_csv(tmp_path / "boxes.csv", BOX_HEAD, row)
    with pytest.raises(DatasetError, match=message):
        boxes(tmp_path / "boxes.csv")


def test_another_file_holds_no_boxes(tmp_path, write_csv):
    with pytest.raises(DatasetError, match="is missing; expected BBox_List_2017"):
        boxes(tmp_path / "none.csv")
    write_csv(tmp_path / "labels.csv", ["Image Index", "Finding Labels"])
    with pytest.raises(DatasetError, match="expected the first columns Image Index"):
        boxes(tmp_path / "labels.csv")


def test_the_real_boxes(real_data):
    found = boxes(real_data / "chestxray14" / "BBox_List_2017.csv")
    assert len(found) == 50
    assert Counter(box.finding for box in found)["Infiltration"] == 4
