"""The PCA map compared with a singular value decomposition, and the groups of every panel."""

import numpy as np
import pytest
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.training.evaluation.plotting import PALETTE
from c2l_models.training.inspection.pca_map import WITH, WITHOUT, draw_map, fit_plane, make_panels
from c2l_models.training.inspection.samples import Features, sample_data_sets


def test_points_and_shares_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(40, 6)) * [5, 3, 2, 1, 1, 1] + 7).astype(np.float32)
    test = rng.normal(size=(9, 6)).astype(np.float32) + 7
    plane = fit_plane("films", train, test)
    centre = train.astype(np.float64).mean(axis=0)
    _, s, axes = np.linalg.svd(train - centre, full_matrices=False)
    expected = (test - centre) @ axes[:2].T
    signs = np.sign((expected * plane.points).sum(axis=0))
    np.testing.assert_allclose(plane.points, expected * signs, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(plane.shares, (s**2 / (s**2).sum())[:2], rtol=1e-6)


def test_one_film_has_no_plane():
    with pytest.raises(DatasetError, match="expected at least two training images of films for a map, found 1"):
        fit_plane("films", np.zeros((1, 6), np.float32), np.zeros((3, 6), np.float32))


@pytest.fixture
def drawn(store):
    sets = sample_data_sets(store, 0)
    rng = np.random.default_rng(0)
    train, test = (
        Features(rows, rng.normal(size=(len(rows), 4)).astype(np.float32))
        for rows in (np.concatenate([films.train for films in sets]), np.concatenate([films.test for films in sets]))
    )
    return make_panels(sets, train, test), train, test


def test_panels_colour_each_test_film_by_what_is_known_of_it(store, drawn):
    found, train, test = drawn
    titles = [(panel.plane.name, panel.title) for panel in found]
    assert titles[:2] == [("all_films", "data set"), ("chestxray14", "view")]
    assert titles[-1] == ("knee_kl", "kl_grade")
    assert 1 < len(titles[2:-1]) <= 5
    for panel in found[2:-1]:
        (_, rest, without), (_, shown, having) = panel.groups
        assert (rest, shown) == (WITHOUT, WITH)
        has = [dict(labels)[panel.title] for labels in store.index["labels"].to_pylist()[36:52]]
        assert having.tolist() == [value == 1 for value in has]
        assert without.tolist() == [value == 0 for value in has]
    counts = [panel.groups[1][2].sum() for panel in found[2:-1]]
    assert counts == sorted(counts, reverse=True)
    of = {name: mask for name, _, mask in found[0].groups}
    assert of["chestxray14"].tolist() == [True] * 16 + [False] * 10
    assert [name for name, _, _ in found[-1].groups] == ["0", "1", "2", "3", "4"]
    # The plane of a data set is fitted on its own training images.
    expected = fit_plane("", train.values[:36], test.values[:16])
    np.testing.assert_array_equal(found[1].plane.points, expected.points)


def test_the_picture_has_every_colour(drawn, tmp_path):
    draw_map(tmp_path / "map.png", drawn[0], "title")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (PALETTE[0], PALETTE[1], PALETTE[5]):
        expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        faded = 0.75 * np.array(expected) + 0.25 * 255
        assert np.abs(picture - faded).max(axis=1).min() < 3, colour
    draw_map(tmp_path / "again.png", drawn[0], "title")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "map.png").read_bytes()
