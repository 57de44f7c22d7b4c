"""AUROC compared with pair counting and scikit-learn; bootstrap and jackknife with explicit lists of rows."""

import math

import numpy as np
import pytest
from oracles import auroc as oracle
from oracles import interval
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.classification_metrics import auroc, weighted_kappa
from c2l_models.training.evaluation.intervals import Estimate, draw_patients


def tied_sample(images=60, labels=3, patients=12, seed=0):
    """Scores with many ties, partly unknown labels, and patients with different numbers of images."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, labels)) < 0.4).astype(float)
    truth[rng.random(truth.shape) < 0.1] = np.nan
    scores = rng.integers(0, 5, (images, labels)) + np.nan_to_num(truth)
    ids = np.array([f"patient {n}" for n in rng.integers(0, patients, images) ** 2])
    return scores, truth, ids


def mean_of(result, *labels):
    """The mean over these labels with its interval; without numbers, over all labels."""
    numbers = np.arange(len(result.per_label))
    mask = np.isin(numbers, labels) if labels else numbers >= 0
    return result.metrics([str(number) for number in numbers], {"mean": mask})["mean"]


def interval_of(result, *labels):
    found = mean_of(result, *labels)
    return found.low, found.high


def test_ties_and_unknown_labels_against_pair_counting():
    scores, truth, _ = tied_sample()
    expected = [oracle.auroc(scores[:, i], truth[:, i]) for i in range(3)]
    np.testing.assert_allclose(auroc(scores, truth, bootstrap=0).per_label, expected, rtol=1e-13)


def test_one_dimension_is_one_label():
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], bootstrap=0).per_label == 0.75
    assert auroc([1, 1, 1, 1], [0, 0, 1, 1], bootstrap=0).per_label == 0.5


def test_against_scikit_learn():
    rng = np.random.default_rng(1)
    truth = rng.random((500, 2)) < 0.3
    scores = rng.normal(size=(500, 2)).round(1) + truth
    expected = [roc_auc_score(truth[:, i], scores[:, i]) for i in range(2)]
    np.testing.assert_allclose(auroc(scores, truth, bootstrap=0).per_label, expected, rtol=1e-13)


def drawn_patients(patients, bootstrap, seed):
    """The draws of numpy's generator with this seed, as lists of patients."""
    ids = sorted(set(patients))
    rng = np.random.default_rng(seed)
    for counts in rng.multinomial(len(ids), [1 / len(ids)] * len(ids), size=bootstrap):
        yield [patient for patient, count in zip(ids, counts, strict=True) for _ in range(count)]


def test_bootstrap_against_repeated_rows_and_sample_weights():
    scores, truth, patients = tied_sample()
    resamples = auroc(scores, truth, patients, bootstrap=15, seed=3).resamples
    for resample, drawn in zip(resamples, drawn_patients(patients, 15, 3), strict=True):
        assert len(drawn) == len(set(patients))
        rows = oracle.repeated_rows(patients, drawn)
        weights = np.bincount(rows, minlength=len(patients))
        for i in range(3):
            known = ~np.isnan(truth[:, i])
            written_out = oracle.auroc(scores[rows, i], truth[rows, i])
            weighted = roc_auc_score(truth[known, i], scores[known, i], sample_weight=weights[known])
            np.testing.assert_allclose(resample[i], written_out, rtol=1e-13)
            np.testing.assert_allclose(resample[i], weighted, rtol=1e-12)


def test_jackknife_against_deleted_rows():
    scores, truth, patients = tied_sample()
    jackknife = auroc(scores, truth, patients, bootstrap=1).jackknife
    expected = [
        [oracle.auroc(scores[rows, i], truth[rows, i]) for i in range(3)] for rows in interval.without_each(patients)
    ]
    np.testing.assert_allclose(jackknife, expected, rtol=1e-13)


def test_ties_and_jackknife_by_hand():
    """Patients a, b and c; positive scores 1 (a) and 2 (b), negative scores 1 (a), 1 (c) and 2 (b)."""
    result = auroc([1, 2, 1, 1, 2], [1, 1, 0, 0, 0], ["a", "b", "a", "c", "b"], bootstrap=1)
    # Positive 1: ties with two negatives, loses to one. Positive 2: above two, ties with one.
    assert result.per_label[0] == (0.5 + 0.5 + 0 + 1 + 1 + 0.5) / 6
    # Without a: positive 2 against 1 and 2. Without b: positive 1 against 1 and 1. Without c: both against 1 and 2.
    assert result.jackknife[:, 0].tolist() == [(1 + 0.5) / 2, (0.5 + 0.5) / 2, (0.5 + 0 + 1 + 0.5) / 4]


def test_a_label_of_one_patient_has_no_value_without_this_patient():
    result = auroc([3, 1, 2], [1, 0, 0], ["a", "b", "c"], bootstrap=5)
    np.testing.assert_array_equal(result.jackknife[:, 0], [math.nan, 1, 1])
    assert np.isnan(auroc([3, 1, 2], [1, 0, 0], bootstrap=0).jackknife).all()


def test_resamples_do_not_depend_on_how_they_are_chunked(monkeypatch):
    scores, truth, patients = tied_sample()
    whole = auroc(scores, truth, patients, bootstrap=10)
    kappa = weighted_kappa(scores[:, 0], scores[:, 1], patients, bootstrap=10)
    for module in ("intervals", "classification_metrics"):
        monkeypatch.setattr(f"c2l_models.training.evaluation.{module}.CHUNK", 3 * len(scores))
    np.testing.assert_array_equal(auroc(scores, truth, patients, bootstrap=10).resamples, whole.resamples)
    for one, two in zip(weighted_kappa(scores[:, 0], scores[:, 1], patients, bootstrap=10), kappa, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-13)


def test_whole_patients_are_drawn_and_widen_the_interval():
    """Ten copies of each image under one patient carry no more information than one image."""
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.5
    scores = rng.normal(size=60) + truth
    once = auroc(scores, truth, np.arange(60))
    copies = auroc(scores.repeat(10), truth.repeat(10), np.arange(60).repeat(10))
    as_if_independent = auroc(scores.repeat(10), truth.repeat(10))
    np.testing.assert_allclose(copies.resamples, once.resamples, rtol=1e-12)

    def width(result):
        low, high = interval_of(result)
        return high - low

    assert width(as_if_independent) < 0.5 * width(copies)


def test_intervals_against_explicit_loops():
    scores, truth, patients = tied_sample()
    result = auroc(scores, truth, patients, bootstrap=200)
    resamples, without = result.resamples, result.jackknife
    assert interval_of(result, 1) == pytest.approx(interval.expanded(resamples[:, 1], without[:, 1]))
    assert interval_of(result) == pytest.approx(interval.expanded(resamples.mean(axis=1), without.mean(axis=1)))
    low, high = np.percentile(resamples[:, 1], [2.5, 97.5])
    assert interval_of(result, 1)[0] < low < high < interval_of(result, 1)[1]
    assert mean_of(result).value == pytest.approx(result.per_label.mean())


def test_mean_over_some_labels():
    scores, truth, patients = tied_sample()
    result = auroc(scores, truth, patients, bootstrap=200)
    some = mean_of(result, 0, 2)
    assert some.value == pytest.approx((result.per_label[0] + result.per_label[2]) / 2)
    both, without = (found[:, [0, 2]].mean(axis=1) for found in (result.resamples, result.jackknife))
    assert (some.low, some.high) == pytest.approx(interval.expanded(both, without))


def test_a_label_with_one_class_is_not_available():
    scores, truth, patients = tied_sample()
    truth[:, 1] = 0
    result = auroc(scores, truth, patients, bootstrap=50)
    assert math.isnan(result.per_label[1])
    assert str(mean_of(result, 1)) == "n/a"
    assert mean_of(result).value == pytest.approx(np.mean(result.per_label[[0, 2]]))
    assert not math.isnan(interval_of(result)[0])
    assert str(mean_of(auroc(scores[:, 1], truth[:, 1]))) == "n/a"


def test_a_resample_with_one_class_is_ignored_for_that_label_only():
    """The one positive patient is missing from about (1 - 1/20)^20 = 36 % of the resamples."""
    rng = np.random.default_rng(0)
    truth = np.stack([np.arange(20) == 7, rng.random(20) < 0.5], axis=1)
    result = auroc(rng.normal(size=(20, 2)), truth, bootstrap=400)
    missing = np.isnan(result.resamples[:, 0])
    assert 0.28 < missing.mean() < 0.44
    assert not np.isnan(result.resamples[:, 1]).any()
    seen = result.resamples[~missing, 0]
    assert interval_of(result, 0) == pytest.approx(interval.expanded(seen, result.jackknife[:, 0]))
    means, without = (
        np.where(np.isnan(found[:, 0]), found[:, 1], found.mean(axis=1))
        for found in (result.resamples, result.jackknife)
    )
    assert interval_of(result) == pytest.approx(interval.expanded(means, without))


@pytest.mark.parametrize("missing", [False, True])
def test_weighted_kappa_is_scikit_learns(missing):
    rng = np.random.default_rng(1)
    true = rng.integers(0, 5, 300).astype(float)
    given = np.clip(true + rng.integers(-1, 3, 300), 0, 4)
    patients = rng.integers(0, 60, 300)
    if missing:
        true[::7] = np.nan
    known = ~np.isnan(true)

    def reference(rows):
        rows = rows[known[rows]]
        return cohen_kappa_score(true[rows].astype(int), given[rows].astype(int), weights="quadratic")

    found = weighted_kappa(given, true, patients, bootstrap=30, seed=3)
    assert found.values == pytest.approx([reference(np.arange(300))])
    counts, row_of = draw_patients(patients, 30, 3)
    for column, resampled in enumerate(found.resamples[:, 0]):  # repeat an image as often as its patient was drawn
        assert resampled == pytest.approx(reference(np.repeat(np.arange(300), counts[row_of, column].astype(int))))
    assert found.jackknife[:, 0] == pytest.approx([reference(rows) for rows in interval.without_each(patients)])


def test_weighted_kappa_by_hand():
    """Two gradings of three images: squared disagreement 1 + 0 + 1 = 2, by chance (1/3) Σ Σ (p - t)² = 10/3."""
    ((value,), _, _) = weighted_kappa([1, 1, 3], [0, 1, 2], np.arange(3), bootstrap=0)
    assert value == pytest.approx(1 - 2 / ((1 + 0 + 1 + 1 + 0 + 1 + 9 + 4 + 1) / 3))
    one_grade = weighted_kappa([2, 2], [2, 2], np.arange(2), bootstrap=0)
    assert math.isnan(one_grade.values[0])


@pytest.mark.parametrize(
    ("scores", "labels", "patients", "message"),
    [
        ([0.1, 0.2], [0, 1, 1], None, "expected scores and labels of one shape"),
        ([0.1, math.nan], [0, 1], None, "1 of 2 scores are not finite"),
        ([0.1, 0.2], [0, 2], None, "expected labels 0, 1 and NaN, found others"),
        ([0.1, 0.2], [0, 1], [1, 2, 3], "expected one patient id for each of 2"),
    ],
)
def test_refusals(scores, labels, patients, message):
    with pytest.raises(C2LError, match=message):
        auroc(scores, labels, patients)


def test_estimates_are_written_as_figures():
    assert str(Estimate(0.6123, 0.58, 0.6449)) == "0.612 (0.580–0.645)"
