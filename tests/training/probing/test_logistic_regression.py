"""Batched logistic regressions reach the optimum of scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from c2l_models.training.probing import logistic_regression as module
from c2l_models.training.probing.logistic_regression import fit_logistic_regressions

PENALTIES = (1e-5, 1e-2, 1.0)


def sample(images, dimensions, seed=0):
    """Correlated features of equal scale, the last one constant; labels from balanced to 2 % positive, a fifth unknown.

    Of the last two labels, one is never positive, and one is known for positive images only.
    """
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions)) * np.logspace(0, -3, dimensions)[:, None]
    features = rng.normal(size=(images, dimensions)) @ mixing
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features[:, -1] = 0
    logits = features[:, :4] * 2 + rng.logistic(size=(images, 4)) - [0, 1, 3, 6]
    labels = np.concatenate([logits > 0, np.zeros((images, 1)), np.ones((images, 1))], axis=1)
    labels[:2, :4] = [[0], [1]]
    labels[2:][rng.random((images - 2, 6)) < 0.2] = np.nan
    return features, labels


@pytest.mark.parametrize(("images", "dimensions"), [(30, 100), (400, 20), (300, 200), (1500, 64)])
def test_same_optimum_as_scikit_learn(images, dimensions, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3 * images * len(PENALTIES))  # labels in two chunks
    features, labels = sample(images, dimensions)
    new, _ = sample(500, dimensions, seed=1)
    coefficients, intercepts = fit_logistic_regressions(torch.tensor(features), torch.tensor(labels), PENALTIES)
    assert coefficients.shape == (3, 6, dimensions)
    assert coefficients[:, 4:].isnan().all()
    assert intercepts[:, 4:].isnan().all()
    for p, penalty in enumerate(PENALTIES):
        for label in range(4):
            known = ~np.isnan(labels[:, label])
            model = LogisticRegression(C=penalty, solver="newton-cholesky", tol=1e-12, max_iter=1000)
            model.fit(features[known], labels[known, label])
            expected, found = model.coef_[0], coefficients[p, label].numpy()
            assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
            assert intercepts[p, label] == pytest.approx(model.intercept_[0], abs=1e-3)
            truth = new @ expected + np.random.default_rng(2).normal(size=500) > 0
            assert roc_auc_score(truth, new @ found) == pytest.approx(roc_auc_score(truth, new @ expected), abs=1e-4)


def test_one_feature_without_any_variance():
    labels = torch.tensor([[1.0], [0], [0], [torch.nan]], dtype=torch.float64)
    coefficients, intercepts = fit_logistic_regressions(torch.zeros(4, 1, dtype=torch.float64), labels, (1.0,))
    assert coefficients.flatten().tolist() == [0.0]
    assert intercepts.item() == pytest.approx(np.log(1 / 2))


def test_a_label_is_fitted_alike_alone_and_beside_others():
    features, labels = (torch.tensor(array) for array in sample(200, 30))
    alone, _ = fit_logistic_regressions(features, labels[:, 1:2], PENALTIES)
    beside, _ = fit_logistic_regressions(features, labels, PENALTIES)
    torch.testing.assert_close(alone[:, 0], beside[:, 1], rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_optimum_on_a_gpu():
    features, labels = (torch.tensor(array) for array in sample(400, 50))
    expected = fit_logistic_regressions(features, labels, PENALTIES)
    found = fit_logistic_regressions(features.cuda(), labels.cuda(), PENALTIES)
    for on_gpu, on_cpu in zip(found, expected, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-6, equal_nan=True)
