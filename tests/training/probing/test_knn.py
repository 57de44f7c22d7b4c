"""k-NN scores compared with a loop over queries, neighbours and labels."""

import math

import numpy as np
import pytest

from c2l_models.errors import C2LError
from c2l_models.training.probing import knn


def vote(train, labels, query, k, temperature):
    """Scores of one query: sort all training images by cosine similarity, let the first k vote."""

    def cosine(a, b):
        return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))

    nearest = sorted(range(len(train)), key=lambda n: -cosine(train[n], query))[:k]
    scores = []
    for label in range(labels.shape[1]):
        voters = [n for n in nearest if not math.isnan(labels[n, label])]
        weights = [math.exp(cosine(train[n], query) / temperature) for n in voters]
        positive = sum(w for n, w in zip(voters, weights, strict=True) if labels[n, label] == 1)
        scores.append(positive / sum(weights))
    return scores


def test_against_a_loop(monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK", 4)  # queries span several chunks
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 8)) * rng.uniform(0.1, 9, size=(50, 1))
    labels = (rng.random((50, 3)) < 0.5).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    queries = rng.normal(size=(11, 8))
    expected = [vote(train, labels, query, 7, 0.3) for query in queries]
    scores = knn.knn_scores(np.float32(train), labels, np.float32(queries), k=7, temperature=0.3)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_where_nobody_knows_the_share_of_the_training_part_stands_in():
    train = np.array([[1, 0], [0.9, 0.1], [-1, 0], [-0.9, 0.1], [-0.8, 0.2]], dtype=np.float32)
    labels = np.array([[np.nan, 1], [np.nan, 0], [1, 0], [0, 0], [0, 0]])
    scores = knn.knn_scores(train, labels, np.array([[1, 0]], dtype=np.float32), k=2)
    assert scores[0, 0] == pytest.approx(1 / 3)
    assert 0 < scores[0, 1] < 1


def test_more_neighbours_than_films():
    train = np.eye(3, dtype=np.float32)
    scores = knn.knn_scores(train, np.array([[1.0], [0], [0]]), train, k=20)
    assert scores[0, 0] > 0.99
    assert scores[1, 0] < 0.01


def test_nothing_is_learnt_of_a_label_with_one_class():
    train = np.eye(4, dtype=np.float32)
    labels = np.array([[0, 1, 1, np.nan], [0, 1, 0, np.nan], [0, np.nan, 0, np.nan], [0, 1, 1, np.nan]])
    scores = knn.knn_scores(train, labels, train, k=2)
    np.testing.assert_array_equal(np.isnan(scores), [[True, True, False, True]] * 4)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(broken):
    train, labels = np.eye(4, dtype=np.float32), np.array([[0.0], [1], [0], [1]])
    queries = np.array([[0, 1, broken, 0]], dtype=np.float32)
    for bank, test in ((train, queries), (np.vstack([queries, train[1:]]), train)):
        with pytest.raises(C2LError, match="not finite"):
            knn.knn_scores(bank, labels, test)
