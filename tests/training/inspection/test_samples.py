"""Sampled data sets and the captions of their images."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.inspection import samples as module
from c2l_models.training.inspection.samples import Features, sample_data_sets
from c2l_models.training.store.store_format import INDEX_SCHEMA


def test_each_data_set_with_its_own_parts(store):
    chests, knees = sample_data_sets(store, 0)
    assert (chests.name, knees.name) == ("chestxray14", "knee_kl")
    assert [len(part) for part in (chests.train, chests.test, knees.train, knees.test)] == [36, 16, 16, 10]
    assert chests.test.tolist() == list(range(36, 52))
    assert set(knees.groups(knees.test)) == {f"kl_grade {grade}" for grade in range(5)}
    assert knees.caption(52) == "knee_kl: kl_grade 0"


def test_a_film_says_all_that_it_shows_and_no_finding_only_where_that_is_known(store):
    rows = store.index.to_pylist()
    rows[0]["labels"] = [(name, float(name in ("Mass", "Edema"))) for name, _ in rows[0]["labels"]]
    rows[1]["labels"] = [(name, 0.0) for name, _ in rows[1]["labels"]]
    rows[2]["labels"] = [(name, 0.0) for name, _ in rows[2]["labels"] if name != "Mass"]
    chests = sample_data_sets(replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA)), 0)[0]
    assert chests.caption(0) == "chestxray14: Mass, Edema"
    assert chests.caption(1) == "chestxray14: no finding"
    assert chests.caption(2) == "chestxray14: not known"


def test_images_for_pretraining_only_are_left_out(store):
    """Also those with a grade, which a caption would show."""
    rows = [row | {"pretraining_only": number in (0, 40, 55)} for number, row in enumerate(store.index.to_pylist())]
    chests, knees = sample_data_sets(replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA)), 0)
    shown = {*chests.train, *chests.test, *knees.train, *knees.test}
    assert shown == {*range(len(store))} - {0, 40, 55}


def test_of_many_films_a_seeded_draw(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAINING", 7)
    one, again, other = (sample_data_sets(store, seed)[0].train.tolist() for seed in (0, 0, 1))
    assert one == again != other
    assert len(one) == 7
    assert one == sorted(set(one))


def test_a_store_without_labels_is_refused(store):
    rows = [row | {"labels": [], "dataset": "folder"} for row in store.index.to_pylist()]
    with pytest.raises(DatasetError, match="no data set with labels"):
        sample_data_sets(replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA)), 0)


def test_features_are_found_by_row():
    features = Features(np.array([2, 5, 9]), np.array([[2.0], [5.0], [9.0]], np.float32))
    assert features.at(np.array([9, 2]))[:, 0].tolist() == [9, 2]
