"""Knees with Kellgren-Lawrence grades: a miniature, and the real folder compared with its published counts."""

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


def test_real_knee_kl(real_data):
    found = ADAPTERS["knee_kl"](real_data / "knee-kl")
    assert Counter(r.split for r in found) == {"train": 5778, "val": 826, "test": 1656}
    assert len({r.patient for r in found}) == 4130
    assert all(r.path.is_file() for r in found)
