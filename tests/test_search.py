"""`nearest` against a full sort in plain Python, `search` on a small table, and the pixels of a contact sheet."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2l_models import search as module
from c2l_models.embedding import Embeddings, embed
from c2l_models.errors import C2LError, RadiographError
from c2l_models.radiographs.phantom import write_films
from c2l_models.search import draw_neighbours, nearest, search, search_all
from c2l_models.sheets import GAP, MARGIN, TEXT_LINE, TILE, contact_sheet

RELEASE = "resnet18.c2l_open26k"
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
    assert indices.tolist() == [[0, 4, 1, 2, 3]]  # ties in order; the zero vector ranks as a right angle
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
        ([[1, 0]], [[1, 0, 0]], 1, None, "features and queries of the same width, found 2 and 3; embed both"),
        ([[1, 0]], [[1, 0]], 2, None, "expected a k from 1 to 1, .* found 2"),
        ([[1, 0]], [[1, 0]], 1, [0], "expected a k from 1 to 0, .* found 1"),
        ([[1, 0]], [[1, 0]], 0, None, "expected a k from 1 to 1, .* found 0"),
        ([[1, np.nan]], [[1, 0]], 1, None, "expected finite features, found NaN or infinity"),
        ([[1, 0]], [1, 0], 1, None, r"queries of shape \[number, width\], found \[2\]"),
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
    assert (sheet[:MARGIN] < 40).all()  # nothing is drawn in the margins,
    assert (sheet[:, 1 - MARGIN :] < 40).all()  # except for the frame
    assert sheet.max() > 200  # and some text is drawn


def test_sheet_never_crops_or_stretches(tmp_path: Path) -> None:
    contact_sheet([[film(200, (100, 50))]], [["wide"]], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as file:
        column = np.asarray(file)[MARGIN + TEXT_LINE : MARGIN + TEXT_LINE + TILE, MARGIN + TILE // 2, 0]
    assert (column == 200).sum() == TILE // 2


def test_sheet_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with pytest.raises(C2LError, match="expected at least one row, and a query in each"):
        contact_sheet([], [], path)
    with pytest.raises(C2LError, match="rows and captions differ"):
        contact_sheet([[film(0), film(1)]], [["a"]], path)
    with pytest.raises(C2LError, match="rows and cosines differ"):
        contact_sheet([[film(0), film(1)]], [["a", "b"]], path, cosines=[[1, 2]])
    assert not path.exists()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], Embeddings]:
    """Five noise films in the working directory, embedded by the release under their relative paths."""
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{n}.png") for n in range(5)]
    for n, path in enumerate(paths):
        noise = np.random.default_rng(n // 2).integers(0, 60, (64, 64))  # 0 and 1 look alike, and so do 2 and 3
        Image.fromarray((noise + 10 * n).astype(np.uint8)).save(path)
    embed(paths, "resnet18.c2l_open26k").save("features.parquet")
    return paths, Embeddings.load("features.parquet")


def test_a_film_of_the_table_finds_its_like_and_not_itself(library: tuple[list[Path], Embeddings]) -> None:
    paths, table = library
    for query in ("2.png", paths[2], paths[2].absolute()):
        found = search(query, table, 2)
        assert found.paths[0] == paths[3]
        assert paths[2] not in found.paths
        expected = slow_cosine(table.features[2].tolist(), table.features[3].tolist())
        assert found.cosines[0] == pytest.approx(expected, abs=1e-5)
    paths[2].unlink()  # the features are still in the table
    assert search("2.png", table, 1).paths == [paths[3]]


def test_another_film_is_embedded_by_the_tables_model(library: tuple[list[Path], Embeddings]) -> None:
    paths, table = library
    Path("new.png").write_bytes(paths[4].read_bytes())
    found = search("new.png", table, 5)
    assert (found.paths[0], len(found.paths)) == (paths[4], 5)
    assert found.cosines[0] == pytest.approx(1, abs=1e-5)


def test_features_of_another_model_are_refused(library: tuple[list[Path], Embeddings]) -> None:
    paths, table = library
    Path("new.png").write_bytes(paths[0].read_bytes())
    other = replace(table, sha256="0" * 64)
    with pytest.raises(C2LError, match=r"resnet18\.c2l_open26k with sha256 000000000000.*cannot be compared"):
        search("new.png", other, 1)
    assert len(search("0.png", other, 1).paths) == 1  # a query in the table needs no embedding
    with pytest.raises(C2LError, match="do not say which model"):
        search("new.png", replace(table, model="", sha256=""), 1)
    named = search("new.png", replace(table, model="", sha256=""), 1, model="resnet18")
    assert named.paths == [paths[0]]
    with pytest.raises(
        C2LError, match=r"computed by gone\.safetensors, which is needed to embed new\.png: .*found no file"
    ):
        search("new.png", replace(table, model="gone.safetensors"), 1)


def test_a_query_that_is_nowhere_or_no_film(library: tuple[list[Path], Embeddings]) -> None:
    _, table = library
    with pytest.raises(
        C2LError, match=r"9\.png: expected an image file, or a path in the features file; found neither"
    ):
        search("9.png", table, 1)
    Path("text.png").write_text("no film", encoding="utf-8")
    with pytest.raises(RadiographError, match=r"text\.png: "):
        search("text.png", table, 1)
    with pytest.raises(C2LError, match=r"expected a k from 1 to 4, .* found 5"):
        search("0.png", table, 5)


def test_films_that_are_gone_are_empty_frames(library: tuple[list[Path], Embeddings]) -> None:
    _, table = library
    found = search("2.png", table, 2)
    assert draw_neighbours(found, "whole.png") == {}
    gone = found.paths[1]
    gone.unlink()
    assert draw_neighbours(found, "sheet.png") == {gone: "no such file"}
    whole, sheet = (np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "sheet.png"))
    assert whole.shape == sheet.shape
    changed = np.flatnonzero((whole != sheet).any(axis=(0, 2)))
    left = MARGIN + 2 * (TILE + GAP) + 2 * GAP
    assert left <= changed.min() < changed.max() < left + TILE  # only the second neighbour's tile


def test_the_query_is_not_its_own_neighbour_whatever_names_it(
    library: tuple[list[Path], Embeddings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, table = library
    query = paths[0].absolute()
    (tmp_path / "file.png").symlink_to(query)
    (tmp_path / "elsewhere").symlink_to(query.parent, target_is_directory=True)
    monkeypatch.chdir(query.parent)
    expected = search(query, table, 1).paths
    assert query not in [path.absolute() for path in expected]
    for name in (query.name, f"./{query.name}", tmp_path / "file.png", tmp_path / "elsewhere" / query.name):
        assert search(name, table, 1).paths == expected, name


def test_a_copy_of_the_query_is_reported(library: tuple[list[Path], Embeddings], tmp_path: Path) -> None:
    paths, table = library
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    found = search(copy, table, 2)
    assert found.paths[0] == paths[0]
    assert found.copies == {paths[0]}
    assert search(paths[0], table, 2).copies == frozenset()


def test_several_queries_are_the_queries_one_by_one(tmp_path: Path) -> None:
    folder = write_films(tmp_path / "films", 6)
    films = sorted(folder.glob("*.png"))
    table, other = embed(films[:4], RELEASE), films[5]
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    found, errors = search_all([films[2], broken, other, films[0]], table, 2)
    assert [row.query for row in found] == [films[2], other, films[0]]
    assert list(errors) == [broken]
    for row in found:
        alone = search(row.query, table, 2)
        assert row.paths == alone.paths
        np.testing.assert_allclose(row.cosines, alone.cosines, atol=1e-6)
    draw_neighbours(found, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        one_row = TEXT_LINE + TILE + 8 + 2 * TEXT_LINE + GAP
        assert sheet.height == 2 * MARGIN + 3 * one_row - GAP
    with pytest.raises(RadiographError, match="broken"):
        search_all([broken], table, 2)


def test_no_query_finds_nothing(library: tuple[list[Path], Embeddings]) -> None:
    _, table = library
    assert search_all([], table, 2) == ([], {})
    with pytest.raises(C2LError, match="expected at least one row"):
        draw_neighbours([], "sheet.png")


def test_the_table_is_normalised_once(library: tuple[list[Path], Embeddings], monkeypatch: pytest.MonkeyPatch) -> None:
    paths, table = library
    Path("new.png").write_bytes(paths[0].read_bytes())
    rows, whole = [], module.unit_vectors
    monkeypatch.setattr(module, "unit_vectors", lambda x, name: rows.append(len(x)) or whole(x, name))
    found, _ = search_all([*paths, "new.png"], table, 2)
    assert sum(rows) == len(paths) + 1
    for row, query in zip(found[:-1], table.features, strict=True):
        ranked = sorted(range(5), key=lambda i: -slow_cosine(table.features[i].tolist(), query.tolist()))
        assert row.paths == [paths[i] for i in ranked[1:3]]


def test_each_film_of_a_sheet_is_decoded_once_and_kept_as_a_tile(
    library: tuple[list[Path], Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is a sheet of the whole films."""
    paths, table = library
    Image.fromarray(rng.integers(0, 256, (901, 1200)).astype(np.uint8)).save(paths[1])
    found, _ = search_all(paths, table, 3)
    rows = [[Image.open(path) for path in (row.query, *row.paths)] for row in found]
    captions = [[path.name for path in (row.query, *row.paths)] for row in found]
    contact_sheet(rows, captions, "whole.png", [row.cosines for row in found])
    decoded, kept, read, draw = [], [], module.read_radiograph, module.contact_sheet
    monkeypatch.setattr(module, "read_radiograph", lambda path: decoded.append(path) or read(path))
    monkeypatch.setattr(module, "contact_sheet", lambda images, *more: kept.extend(images) or draw(images, *more))
    draw_neighbours(found, "sheet.png")
    assert sorted(decoded) == paths
    assert max(max(image.size) for row in kept for image in row) == TILE
    assert Path("sheet.png").read_bytes() == Path("whole.png").read_bytes()
