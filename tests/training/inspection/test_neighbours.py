"""Nearest training images compared with brute force, without the query's own patient."""

import numpy as np
import pytest
from oracles.activation import neighbours
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.training.inspection.neighbours import choose_queries, draw_neighbours, find_neighbours
from c2l_models.training.inspection.samples import Features, sample_data_sets


def features_of(rows, seed):
    return Features(rows, np.random.default_rng(seed).normal(size=(len(rows), 5)).astype(np.float32))


def test_the_nearest_are_those_of_brute_force_and_not_of_the_querys_patient(store):
    """Every image is a training image here, so that the query and its patient are among them."""
    rows = np.arange(len(store))
    train = features_of(rows, 0)
    train.values[1] = 2 * train.values[0]  # the other image of the same patient has cosine similarity 1
    queries = [0, 17, 60]
    for one, query in zip(find_neighbours(store, train, train, queries, 4), queries, strict=True):
        expected = neighbours(
            train.values.tolist(), store.patients, train.values[query].tolist(), store.patients[query], 4
        )
        assert one.rows == [row for row, _ in expected]
        np.testing.assert_allclose(one.cosines, [cosine for _, cosine in expected], rtol=1e-5)
        assert store.patients[query] not in store.patients[one.rows]


def test_too_few_films_of_others(store):
    train = features_of(np.array([0, 1, 2]), 0)
    with pytest.raises(DatasetError, match=r"expected at least 2 training images of patients other.*, found 1"):
        find_neighbours(store, train, train, [0], 2)


def test_queries_are_test_films_of_each_data_set_and_of_several_groups(store):
    sets = sample_data_sets(store, 0)
    queries = choose_queries(sets, 0)
    assert queries == choose_queries(sets, 0) != choose_queries(sets, 1)
    assert len(set(queries)) == 6
    assert set(store.index["split"].take(queries).to_pylist()) == {"test"}
    captions = [films.caption(row) for films, row in zip(np.repeat(sets, 3), queries, strict=True)]
    assert captions[0] == "chestxray14: no finding"
    assert captions[3] == "knee_kl: kl_grade 0"
    assert len(set(captions[3:])) == 3


def test_the_picture_shows_the_films(store, tmp_path):
    sets = sample_data_sets(store, 0)
    train = features_of(np.concatenate([films.train for films in sets]), 0)
    test = features_of(np.concatenate([films.test for films in sets]), 1)
    captions = draw_neighbours(tmp_path / "a.png", sets, store, find_neighbours(store, train, test, [40, 70], 2))
    assert [query["row"] for query in captions] == [40, 70]
    assert captions[1]["film"] == "knee_kl: kl_grade 3"  # row 70 is knee 18
    assert [len(query["nearest"]) for query in captions] == [2, 2]
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    film = Image.fromarray(store.images[captions[0]["nearest"][1]["row"]]).resize((200, 200), Image.Resampling.BICUBIC)
    left, top = 28 + 2 * (200 + 14) + 28, 28 + 20
    assert np.array_equal(sheet[top : top + 200, left : left + 200], np.asarray(film))
