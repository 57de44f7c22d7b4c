"""FracAtlas: rows of `dataset.csv` become records; wrong rows are refused."""

from collections import Counter

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS

HEADER = "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"
ROWS = [
    "IMG1.jpg,0,1,0,0,0,0,1,0,0,1,1,0",
    "IMG2.jpg,1,0,0,1,1,0,0,1,2,0,1,0",
    "IMG3.jpg,0,0,1,0,0,1,0,1,1,0,0,1",
]


def test_rows_become_records(tmp_path):
    (tmp_path / "dataset.csv").write_text("\n".join([HEADER, *ROWS]))
    leg, mixed, hip = ADAPTERS["fracatlas"](tmp_path)
    assert leg.path == tmp_path / "images" / "Non_fractured" / "IMG1.jpg"
    assert mixed.path == tmp_path / "images" / "Fractured" / "IMG2.jpg"
    assert [r.body_part for r in (leg, mixed, hip)] == ["leg", "mixed", "hip"]
    assert [r.view for r in (leg, mixed, hip)] == ["", "LATERAL", ""]
    assert [r.labels for r in (leg, mixed, hip)] == [{"fractured": 0.0}, {"fractured": 1.0}, {"fractured": 1.0}]
    assert [r.patient for r in (leg, mixed, hip)] == ["fracatlas:IMG1", "fracatlas:IMG2", "fracatlas:IMG3"]
    assert {r.split for r in (leg, mixed, hip)} == {"train"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("IMG4.jpg,0,1,0,0,0,0,1,yes,0,1,1,0", "line 5: expected fractured 0 or 1, found 'yes'; download"),
        ("IMG4.jpg,0,0,0,0,0,0,1,0,0,1,1,0", "line 5: expected 1 for one or more of hand, leg, hip, shoulder, found"),
        ("IMG1.jpg,0,1,0,0,0,0,1,0,0,1,1,0", r"line 5: same image as in dataset\.csv, line 2"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, row, message):
    (tmp_path / "dataset.csv").write_text("\n".join([HEADER, *ROWS, row]))
    with pytest.raises(DatasetError, match=message):
        ADAPTERS["fracatlas"](tmp_path)


def test_real_images(real_data):
    found = ADAPTERS["fracatlas"](real_data / "fracatlas")
    assert len(found) == len({r.patient for r in found}) == 3928
    assert sum(r.labels["fractured"] for r in found) == 693
    assert all(r.path.is_file() for r in found)
    # counted with awk over the columns of dataset.csv
    assert Counter(r.body_part for r in found) == {"leg": 2064, "hand": 1197, "mixed": 390, "hip": 179, "shoulder": 98}
