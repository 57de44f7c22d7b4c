"""The simulated intervals compared with SciPy's, numerical derivatives, and a truth that is known by counting."""

import io

import numpy as np
import pytest
from oracles import auroc as oracle
from rich.console import Console
from scipy.stats import bootstrap
from sklearn.metrics import cohen_kappa_score

from c2l_models.training.benchmark import interval_coverage
from c2l_models.training.benchmark.interval_coverage import (
    CASES,
    METHODS,
    Case,
    draw_grades,
    draw_scores,
    patient_of_images,
    simulate_coverage,
    true_kappa,
)
from c2l_models.training.benchmark.interval_methods import auroc_slopes, bca, kappa_slopes, studentized

ROWS = np.repeat(np.arange(8), [9, 6, 5, 4, 3, 2, 2, 1])
CASE = Case("small", (0.4, 0.3), (1,))


def sample():
    labels, ((scores,),) = draw_scores(CASE, ROWS, np.random.default_rng(2))
    return scores, labels, draw_grades(ROWS, np.random.default_rng(1))


def kappa(predicted, true, weights):
    return cohen_kappa_score(true, predicted, weights="quadratic", sample_weight=weights, labels=range(5))


def mean_auroc(scores, labels, weights):
    return np.mean([oracle.auroc(scores[:, i], labels[:, i], weights) for i in range(2)])


def test_patients_are_those_of_the_official_test_part():
    sizes = np.bincount(patient_of_images())
    assert (len(sizes), sizes.sum(), sizes.max()) == (91, 1492, 137)


def test_bca_is_scipys():
    values = np.random.default_rng(0).gamma(1, size=20)
    theirs = bootstrap((values,), np.mean, method="BCa", n_resamples=500, rng=1)
    without = np.array([np.delete(values, i).mean() for i in range(20)])
    ours = bca(values.mean(), theirs.bootstrap_distribution, without)
    assert ours == pytest.approx(theirs.confidence_interval)


@pytest.mark.parametrize("metric", ["auroc", "kappa"])
def test_slopes_are_derivatives_by_the_weight_of_a_patient(metric):
    scores, labels, grades = sample()
    counts = np.array([[1, 1, 2, 1, 0, 1, 1, 1]]).T.astype(float)
    slopes = auroc_slopes(scores, labels, ROWS, counts) if metric == "auroc" else kappa_slopes(*grades, ROWS, counts)
    for column, weights in enumerate((np.ones(8), counts[:, 0])):
        for patient in range(8):
            step = 1e-4 * np.eye(8)[patient]
            up, down = (
                mean_auroc(scores, labels, moved[ROWS]) if metric == "auroc" else kappa(*grades, moved[ROWS])
                for moved in (weights + step, weights - step)
            )
            assert slopes[patient, column] == pytest.approx((up - down) / 2e-4, abs=1e-6)


def test_the_studentized_interval_of_a_mean_by_hand():
    """The mean of 0, 0 and 3 has slopes (value - mean) / 3 and standard error √6 / 3."""
    values, drawn = np.array([0.0, 0, 3]), np.array([[2, 1, 0, 0], [0, 1, 1, 2], [1, 1, 2, 1]], dtype=float)
    means = values @ drawn / 3
    slopes = (values[:, None] - np.append(1.0, means)) / 3
    errors = [np.sqrt(sum(drawn[p, r] * slopes[p, r + 1] ** 2 for p in range(3))) for r in range(4)]
    t = sorted((mean - 1) / error for mean, error in zip(means, errors, strict=True))
    low, high = studentized(1, means, slopes, drawn)
    assert (low, high) == pytest.approx([1 - np.quantile(t, q) * 6**0.5 / 3 for q in (0.975, 0.025)])


def test_the_truth_is_that_of_many_patients():
    rows = np.arange(4000)
    generator = np.random.default_rng(0)
    for case in (Case("one", (0.3,), (1,)), Case("two", (0.3,), (1, 0.5))):
        labels, networks = draw_scores(case, rows, generator)
        ranks = [np.argsort(np.argsort(scores[:, 0])) for (scores,) in networks]
        positive = labels[:, 0] == 1
        pairs = positive.sum() * (~positive).sum()
        aurocs = [(of[positive].sum() - positive.sum() * (positive.sum() - 1) / 2) / pairs for of in ranks]
        assert case.truth == pytest.approx(aurocs[0] - sum(aurocs[1:]), abs=0.03)
    assert true_kappa() == pytest.approx(kappa(*draw_grades(np.arange(20_000), generator), None), abs=0.02)


def test_every_case_has_its_methods(monkeypatch):
    monkeypatch.setattr(interval_coverage, "true_kappa", lambda: 0.6)
    result = simulate_coverage(3, resamples=50, progress=False)
    assert [case.name for case in result.cases][:-1] == [case.name for case in CASES]
    for case in result.cases:
        methods = ("percentile", "expanded") if "seeds" in case.name else METHODS
        assert sorted(case.coverage) == sorted(methods)
        assert all(0 <= share <= 1 for share in case.coverage.values())
        assert case.width["expanded"] >= case.width["percentile"]
    screen = Console(file=io.StringIO(), width=160)
    screen.print(result)
    assert screen.file.getvalue().count("–") == 4  # two cases without two of the methods
