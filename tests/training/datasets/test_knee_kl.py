"""Knees with Kellgren-Lawrence grades: a miniature, and the real folder compared with its published counts."""

import shutil
from collections import Counter

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS


def test_knee_kl_reads_grades(tmp_path, write_csv):
    header = ["image", "subject", "side", "kl_grade", "split"]
    write_csv(tmp_path / "labels.csv", header, ["9L.jpg", "9", "L", "4", "val"], ["9R.jpg", "9", "R", "0", "val"])
    left, right = ADAPTERS["knee_kl"](tmp_path)
    assert left.path == tmp_path / "images" / "9L.jpg"
    assert (left.patient, left.view, left.split, left.labels) == ("knee_kl:9", "PA", "val", {"kl_grade": 4.0})
    assert right.labels == {"kl_grade": 0.0}
    assert left.study == right.study == "knee_kl:9"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["9L.jpg", "9", "L", "5", "val"]], "line 2: expected kl_grade 0 to 4, found '5'"),
        ([["9L.jpg", "9", "L", "1", "dev"]], "line 2: expected split train, val or test, found 'dev'"),
        (
            [["9L.jpg", "9", "L", "1", "val"], ["9R.jpg", "9", "R", "1", "test"]],
            "line 3: this patient is in split test here, but in split val in labels.csv, line 2",
        ),
        ([["9L.jpg", "9", "L", "1", "val"]] * 2, "line 3: same image as in labels.csv, line 2; keep one row"),
    ],
)
def test_knee_kl_refuses(tmp_path, write_csv, rows, message):
    write_csv(tmp_path / "labels.csv", ["image", "subject", "side", "kl_grade", "split"], *rows)
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["knee_kl"](tmp_path)


def publishers_folder(root, *images):
    """The publisher's layout: each grade of each split has one image of its own, beside these images."""
    own = (
        f"{split}/{grade}/90{i}000{grade}R.png"
        for i, split in enumerate(("train", "val", "test"))
        for grade in range(5)
    )
    for image in (*own, *images):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    return root


def test_the_publishers_folders_are_read(tmp_path):
    others = ("auto_test/0/9990001L.png", "train/0/Thumbs.db", "train/0/._9000000R.png")
    found = ADAPTERS["knee_kl"](publishers_folder(tmp_path, "train/3/9000000L.png", *others))
    assert len(found) == 16
    assert {record.dataset for record in found} == {"knee_kl"}
    by_name = {record.path.relative_to(tmp_path).as_posix(): record for record in found}
    left, right = by_name["train/3/9000000L.png"], by_name["train/0/9000000R.png"]
    assert (left.patient, left.study, left.view, left.split) == ("knee_kl:9000000", "knee_kl:9000000", "PA", "train")
    assert (left.labels, right.labels) == ({"kl_grade": 3.0}, {"kl_grade": 0.0})
    assert by_name["test/4/9020004R.png"].split == "test"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("train/4/9000000R.png", "9000000R is in train/0 and train/4; keep one file per knee"),
        ("test/4/9000000L.png", "subject 9000000 is in train and test; expected one split"),
    ],
)
def test_a_knee_with_two_grades_or_splits_is_refused(tmp_path, image, message):
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["knee_kl"](publishers_folder(tmp_path, image))


def test_other_layouts_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"expected the publisher's folder kneeKL224 .*, found neither; give"):
        ADAPTERS["knee_kl"](tmp_path)
    shutil.rmtree(publishers_folder(tmp_path) / "val" / "2")
    with pytest.raises(DatasetError, match=r"val/2: expected images of grade 2, found none; unpack"):
        ADAPTERS["knee_kl"](tmp_path)


def test_real_knee_kl(real_data):
    found = ADAPTERS["knee_kl"](real_data / "knee-kl")
    assert Counter(r.split for r in found) == {"train": 5778, "val": 826, "test": 1656}
    assert len({r.patient for r in found}) == 4130
    assert all(r.path.is_file() for r in found)
