"""The linear probe compared with an explicit implementation with another solver."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from c2l_models.errors import C2LError
from c2l_models.training.patient_splits import split_patients
from c2l_models.training.probing import linear_probe as linear
from c2l_models.training.probing.linear_probe import linear_probe


@pytest.fixture
def sample():
    """600 images of 100 patients, 30 features of very different scales; label 1 is unknown for some images."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 30)) * np.logspace(-3, 3, 30) + 5
    signal = ((features - 5) / np.logspace(-3, 3, 30))[:, :2]
    labels = (signal + rng.normal(size=(600, 2)) > 0.3).astype(float)
    labels[rng.random(600) < 0.3, 1] = np.nan
    patients = np.array([f"patient {n}" for n in rng.integers(0, 100, 600)])
    return features[:400], labels[:400], patients[:400], features[400:]


def fit(train, labels, test, c):
    """Scores [M, L] of Newton's method on standardized features."""
    centre, scale = train.mean(axis=0), train.std(axis=0)
    train, test = (train - centre) / scale, (test - centre) / scale
    scores = []
    for column in labels.T:
        known = ~np.isnan(column)
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(train[known], column[known])
        scores.append(test @ model.coef_[0] + model.intercept_[0])
    return np.stack(scores, axis=1)


def mean_auroc(scores, labels):
    known = ~np.isnan(labels)
    return np.mean([roc_auc_score(labels[k, i], scores[k, i]) for i, k in enumerate(known.T)])


def test_against_the_steps_written_out(sample):
    train, labels, patients, test = sample
    held_out = split_patients(patients, 0.2, "probe_tuning", 7)
    tuned = {
        c: mean_auroc(fit(train[~held_out], labels[~held_out], train[held_out], c), labels[held_out])
        for c in linear.C_GRID
    }
    result = linear_probe(train, labels, patients, test, seed=7)
    assert tuned[result.C] == pytest.approx(max(tuned.values()), abs=2e-3)
    assert result.tuning_auroc == pytest.approx(tuned[result.C], abs=2e-3)
    assert result.scores.dtype == np.float32
    expected = fit(train, labels, test, result.C)
    assert np.abs(result.scores - expected).max() < 0.02 * expected.std()


def test_no_patient_is_both_fitted_and_tuned_on(sample, monkeypatch):
    train, labels, patients, _ = sample
    numbered = np.arange(len(train), dtype=float)[:, None]  # the feature of an image is its number
    fitted_on, tuned_on = [], []

    def scores(train, labels, test, c):
        fitted_on.append(set(patients[train[:, 0].astype(int)]))
        tuned_on.append(set(patients[test[:, 0].astype(int)]))
        return np.zeros((len(test), labels.shape[1]), np.float32)

    monkeypatch.setattr(linear, "_scores", scores)
    linear_probe(numbered, labels, patients, numbered)
    *tuning, _ = zip(fitted_on, tuned_on, strict=True)
    assert len(tuning) == len(linear.C_GRID)
    assert all(not fitted & tuned and fitted | tuned == set(patients) for fitted, tuned in tuning)
    assert fitted_on[-1] == set(patients)


def test_a_label_with_one_class_to_learn_from_has_no_scores(sample):
    train, labels, patients, test = sample
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, 0)
    scores = linear_probe(train, labels, patients, test).scores
    assert np.isnan(scores[:, 1]).all()
    assert np.isfinite(scores[:, 0]).all()


def test_refusals(sample):
    train, labels, patients, test = sample
    with pytest.raises(C2LError, match="not finite"):
        linear_probe(train * np.inf, labels, patients, test)
    with pytest.raises(C2LError, match="use a training part with more patients"):
        linear_probe(train, labels, np.full(len(train), "one patient"), test)
    with pytest.raises(C2LError, match="use a training part with more patients"):
        linear_probe(train, np.zeros_like(labels), patients, test)


def test_patients_that_are_left_after_a_hold_out_are_tuned_on_too():
    """Both splits select by a hash. If the hashes were equal, the second split would select no remaining patient."""
    rng = np.random.default_rng(0)
    patients = np.array([f"p{n}" for n in range(400)])
    left = patients[~split_patients(patients, 0.25, "pretraining")]
    features = rng.normal(size=(len(left), 4))
    labels = (features[:, :1] + rng.normal(size=(len(left), 1)) > 0).astype(float)
    assert linear_probe(features, labels, left, features, seed=0).tuning_auroc > 0.6
