"""Which rows of an evaluation list are headers: no row with a name is one, and a header is not judged."""

from pathlib import Path

import pytest

from c2l_models import get_weights
from c2l_models.releases.evaluation_list import read_list, recognise
from c2l_models.releases.leakage import NOT_SEEN, UNDECIDED, check_leakage


def first_line_judged(tmp_path: Path, text: str, column: str | None = None) -> int:
    path = tmp_path / "list.csv"
    path.write_text(text)
    listed = read_list(path, column)
    assert bool(listed.header) == (listed.lines[0] == 2)
    return listed.lines[0]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("image_1,label\n00001336_000.png,1\n", None),
        ("image_1\n00001336_000.png\n", None),
        ("file.name,label\n00001336_000.png,1\n", "file.name"),
        ("images/2024,label\n1336,1\n", "images/2024"),
        (",label\n00001336_000.png,1\n", None),  # as pandas writes an index of names
        ("image,label\nscan.png,1\n", "1"),
        ("age,patient_id\n1,1336\n", None),
    ],
)
def test_a_header_is_not_judged(text: str, column: str | None, tmp_path: Path) -> None:
    assert first_line_judged(tmp_path, text, column) == 2


@pytest.mark.parametrize(
    ("text", "column"),
    [
        (",00001336_000.png\n00000002_000.png,00000003_000.png\n00000002_000.png,\n", None),
        (",00001336_000.png\n00000002_000.png,00000003_000.png\n", "1"),
        ("film,00001336_000.png\n00000002_000.png,00000003_000.png\n", "1"),
        ("IMG12\nIMG0000044.jpg\n", None),  # a misspelt name must be reported
        ("0000133_000\n00001336_000.png\n", None),
        ("scan.png\n00001336_000.png\n", None),
        ("xray1\nxray2\n", None),
        ("1336\n7\n", None),
        ("2,1336\n3,7\n", "2"),
    ],
)
def test_a_row_that_may_be_data_is_judged(text: str, column: str | None, tmp_path: Path) -> None:
    assert first_line_judged(tmp_path, text, column) == 1


@pytest.mark.parametrize("field", ["chestxray14:00001336", "chestxray14:1336", "knee_kl:9000099"])
def test_a_full_id_is_no_bare_number(field: str) -> None:
    found = recognise(field, {})
    assert found is not None
    assert not found.bare
    bare = recognise(field.partition(":")[2], {})
    assert bare is not None
    assert bare.bare


def test_weights_that_saw_no_radiograph_saw_no_rsna_image(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("0004cfab-14fd-4e49-80ba-63a80b6bddd6\n")
    for name, verdict in {"resnet18.imagenet": NOT_SEEN, "resnet18.c2l_open26k": UNDECIDED}.items():
        assert check_leakage(tmp_path / "list.csv", get_weights(name)).verdicts == [verdict]
