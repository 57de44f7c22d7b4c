"""nearest against a sort of every pair in plain Python; contact_sheet by what stands where."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2l_models.errors import C2LError
from c2l_models.search import GAP, MARGIN, TEXT_LINE, TILE, contact_sheet, nearest

rng = np.random.default_rng(0)


def slow_cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def test_nearest_is_a_full_sort() -> None:
    features, queries = rng.normal(size=(40, 7)) * 5, rng.normal(size=(6, 7))
    indices, cosines = nearest(features, queries, 5)
    assert (indices.dtype, cosines.dtype) == (np.int64, np.float32)
    for query, row, cosine in zip(queries.tolist(), indices.tolist(), cosines, strict=True):
        ranked = sorted(range(40), key=lambda i: -slow_cosine(features[i].tolist(), query))
        assert row == ranked[:5]
        assert cosine == pytest.approx([slow_cosine(features[i].tolist(), query) for i in row], abs=1e-6)


def test_nearest_by_hand() -> None:
    indices, cosines = nearest([[1, 0], [0, 0], [0, 2], [-3, 0], [1, 0]], [[5, 0]], 5)
    assert indices.tolist() == [[0, 4, 1, 2, 3]]  # ties in order, the zero vector among the right angles
    assert cosines.tolist() == [[1, 1, 0, 0, -1]]


def test_excluded_is_the_query_itself_not_its_double() -> None:
    features = [[1, 0], [1, 0], [0, 1]]
    assert nearest(features, features, 1)[0].tolist() == [[0], [0], [2]]
    assert nearest(features, features, 2, exclude=[0, 1, 2])[0].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    features = rng.normal(size=(10, 3)).astype(np.float32)
    expected = nearest(features, features, 3)[0]
    assert np.array_equal(nearest(torch.from_numpy(features), torch.from_numpy(features), 3)[0], expected)


@pytest.mark.parametrize(
    ("features", "queries", "k", "exclude", "says"),
    [
        ([[1, 0]], [[1, 0, 0]], 1, None, "features of 2 dimensions and queries of 3: embed both"),
        ([[1, 0]], [[1, 0]], 2, None, "k = 2 neighbours wanted of 1 films"),
        ([[1, 0]], [[1, 0]], 1, [0], "k = 1 neighbours wanted of 0 films"),
        ([[1, 0]], [[1, 0]], 0, None, "k = 0"),
        ([[1, np.nan]], [[1, 0]], 1, None, "features hold values that are not finite"),
        ([[1, 0]], [1, 0], 1, None, r"queries of shape \[2\]"),
    ],
)
def test_nearest_refuses(features: list, queries: list, k: int, exclude: list | None, says: str) -> None:
    with pytest.raises(C2LError, match=says):
        nearest(features, queries, k, exclude)


def film(value: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("L", size, value)


def test_sheet_shows_each_film_in_its_place(tmp_path: Path) -> None:
    values = [[10, 60, 110], [30, 80, 130]]
    rows = [[film(v) for v in row] for row in values]
    captions = [
        ["effusion", "none", "effusion"],
        ["none", "a finding with a name too long for two lines " * 3, ""],
    ]
    contact_sheet(rows, captions, tmp_path / "sheet.png", cosines=[[0.9, 0.1], [1, -1]])
    with Image.open(tmp_path / "sheet.png") as file:
        assert (file.format, file.mode) == ("PNG", "RGB")
        sheet = np.asarray(file)
    height = (len(sheet) - 2 * MARGIN + GAP) // 2
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            left = MARGIN + j * (TILE + GAP) + (2 * GAP if j else 0)
            top = MARGIN + i * height + TEXT_LINE
            assert (sheet[top + 2 : top + TILE - 2, left + 2 : left + TILE - 2] == value).all()
    assert (sheet[:MARGIN] < 40).all()  # nothing runs into the margins,
    assert (sheet[:, 1 - MARGIN :] < 40).all()  # but for the frame
    assert sheet.max() > 200  # and something is written


def test_sheet_never_crops_or_stretches(tmp_path: Path) -> None:
    contact_sheet([[film(200, (100, 50))]], [["wide"]], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as file:
        column = np.asarray(file)[MARGIN + TEXT_LINE : MARGIN + TEXT_LINE + TILE, MARGIN + TILE // 2, 0]
    assert (column == 200).sum() == TILE // 2


def test_sheet_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with pytest.raises(C2LError, match="no films to draw"):
        contact_sheet([], [], path)
    with pytest.raises(C2LError, match="rows and captions differ"):
        contact_sheet([[film(0), film(1)]], [["a"]], path)
    with pytest.raises(C2LError, match="rows and cosines differ"):
        contact_sheet([[film(0), film(1)]], [["a", "b"]], path, cosines=[[1, 2]])
    assert not path.exists()
