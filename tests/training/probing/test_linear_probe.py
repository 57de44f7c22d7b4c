"""The linear probe compared with an explicit implementation with another solver."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.predictions import tuning_metric
from c2l_models.training.evaluation.tasks import Task, load_task
from c2l_models.training.patient_splits import patient_folds, split_patients
from c2l_models.training.probing import linear_probe as linear
from c2l_models.training.probing.linear_probe import C_GRID, linear_probe


def metric(*names: str, task: Task | None = None):
    return partial(tuning_metric, task or load_task("folder"), names)


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


def mean_auroc(scores, labels, folds):
    """Mean over labels and folds."""
    each = []
    for fold in range(5):
        for i, known in enumerate((~np.isnan(labels) & (folds == fold)[:, None]).T):
            each.append(roc_auc_score(labels[known, i], scores[known, i]))
    return np.mean(each)


def test_against_the_steps_written_out(sample):
    train, labels, patients, test = sample
    folds = patient_folds(patients, 5, "probe_tuning", 7)
    tuned = {}
    for c in C_GRID:
        scores = np.zeros_like(labels)
        for fold in range(5):
            scores[folds == fold] = fit(train[folds != fold], labels[folds != fold], train[folds == fold], c)
        tuned[c] = mean_auroc(scores, labels, folds)
    result = linear_probe(train, labels, patients, test, metric("a", "b"), seed=7)
    assert max(tuned, key=lambda c: tuned[c]) == result.C
    assert result.tuning_auroc == pytest.approx(tuned[result.C], abs=1e-4)
    assert result.scores.dtype == np.float32
    expected = fit(train, labels, test, result.C)
    assert np.abs(result.scores - expected).max() < 1e-3 * expected.std()


def test_no_patient_is_both_fitted_and_tuned_on(sample, monkeypatch):
    train, labels, patients, _ = sample
    numbered = np.arange(len(train), dtype=float)[:, None]  # the feature of an image is its number
    fitted_on, tuned_on = [], []

    def scores(train, labels, test, penalties, device):
        fitted_on.append(set(patients[train[:, 0].astype(int)]))
        tuned_on.append(set(patients[test[:, 0].astype(int)]))
        return np.zeros((len(penalties), len(test), labels.shape[1]), np.float32)

    monkeypatch.setattr(linear, "_scores", scores)
    linear_probe(numbered, labels, patients, numbered, metric("a", "b"))
    *tuning, _ = zip(fitted_on, tuned_on, strict=True)
    assert len(tuning) == 5
    assert all(not fitted & tuned and fitted | tuned == set(patients) for fitted, tuned in tuning)
    assert set.union(*(tuned for _, tuned in tuning)) == set(patients)
    assert fitted_on[-1] == set(patients)


def test_equal_penalties_in_doubt_the_strongest(sample):
    train, labels, patients, test = sample
    assert linear_probe(train, labels, patients, test, lambda *_: 0.5).C == C_GRID[0] == min(C_GRID)
    values = iter([np.nan, 0.5, 0.7, 0.7, *[0.6] * 7])
    result = linear_probe(train, labels, patients, test, lambda *_: next(values))
    assert (result.C, result.tuning_auroc) == (C_GRID[2], 0.7)


def test_a_single_penalty_is_not_tuned(sample):
    train, labels, patients, test = sample
    result = linear_probe(train, labels, patients, test, lambda *_: pytest.fail("tuned"), penalties=(0.03,))
    assert result.C == 0.03
    np.testing.assert_allclose(result.scores, fit(train, labels, test, 0.03), atol=1e-3)


@pytest.mark.parametrize("positives", [1, 4])
@pytest.mark.parametrize("task", [load_task("folder"), load_task("chestxray14")], ids=lambda task: task.name)
def test_a_label_with_few_positives_does_not_move_the_penalty(sample, positives, task):
    """Such a label's AUROC jumps between penalties. It may decide neither as a label of its own nor in a mean."""
    train, labels, patients, test = sample
    names = ("Mass", "Edema", "Hernia", "Nodule")
    rare = np.zeros((len(train), 2))
    rare[:: len(train) // positives] = 1
    both = np.concatenate([labels, rare], axis=1)
    before = linear_probe(train, labels, patients, test, metric(*names[:2], task=task))
    after = linear_probe(train, both, patients, test, metric(*names, task=task))
    assert (after.C, after.tuning_auroc) == (before.C, pytest.approx(before.tuning_auroc, abs=1e-4))


def test_a_label_with_one_class_to_learn_from_has_no_scores(sample):
    train, labels, patients, test = sample
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, 0)
    scores = linear_probe(train, labels, patients, test, metric("a", "b")).scores
    assert np.isnan(scores[:, 1]).all()
    assert np.isfinite(scores[:, 0]).all()


def test_refusals(sample):
    train, labels, patients, test = sample
    with pytest.raises(C2LError, match="not finite"):
        linear_probe(train * np.inf, labels, patients, test, metric("a", "b"))
    with pytest.raises(C2LError, match="use a training part with more patients"):
        linear_probe(train, labels, np.full(len(train), "one patient"), test, metric("a", "b"))
    with pytest.raises(C2LError, match="use a training part with more patients"):
        linear_probe(train, np.zeros_like(labels), patients, test, metric("a", "b"))


def test_patients_that_are_left_after_a_hold_out_are_tuned_on_too():
    """Both splits select by a hash. If the hashes were equal, folds would be missing among the remaining patients."""
    rng = np.random.default_rng(0)
    patients = np.array([f"p{n}" for n in range(400)])
    left = patients[~split_patients(patients, 0.25, "pretraining")]
    features = rng.normal(size=(len(left), 4))
    labels = (features[:, :1] + rng.normal(size=(len(left), 1)) > 0).astype(float)
    assert linear_probe(features, labels, left, features, metric("a"), seed=0).tuning_auroc > 0.6
    assert len(set(patient_folds(left, 5, "probe_tuning"))) == 5
