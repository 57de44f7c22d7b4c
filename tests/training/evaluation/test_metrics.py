"""Metrics: saving, paired differences, and averages over runs."""

from dataclasses import replace

import numpy as np
import pytest

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.classification_metrics import auroc
from c2l_models.training.evaluation.metrics import FILE, Metrics, average

NAMES = ("Mass", "Edema", "Hernia")


def sample(patients=30, films=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(films, 3)), (rng.random((films, 3)) < 0.3).astype(float), rng.integers(0, patients, films)


def metrics_of(scores, truth, patients, bootstrap=50, seed=0):
    return auroc(scores, truth, patients, bootstrap, seed).metrics(NAMES, {"mean": np.array([True, True, False])})


def test_a_difference_is_taken_resample_by_resample():
    scores, truth, patients = sample()
    a = metrics_of(scores, truth, patients)
    b = metrics_of(scores + np.random.default_rng(1).normal(size=scores.shape), truth, patients)
    paired = a.minus(b, "mean")
    by_resample = a.resamples[:, :2].mean(axis=1) - b.resamples[:, :2].mean(axis=1)
    assert paired.value == pytest.approx(a.values[:2].mean() - b.values[:2].mean())
    assert (paired.low, paired.high) == pytest.approx(np.percentile(by_resample, [2.5, 97.5]))
    assert a.minus(b, "Edema").value == pytest.approx(a.values[1] - b.values[1])
    itself = a.minus(a, "mean")
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)
    assert str(itself) == "+0.000 (+0.000 to +0.000)"


@pytest.mark.parametrize("change", ["seed", "bootstrap", "patients", "truth"])
def test_a_difference_between_other_samples_is_refused(change):
    scores, truth, patients = sample()
    a = metrics_of(scores, truth, patients)
    changed = {
        "seed": (scores, truth, patients, 50, 1),
        "bootstrap": (scores, truth, patients, 51),
        "patients": (scores, truth, patients[::-1]),
        "truth": (scores, 1 - truth, patients),
    }[change]
    with pytest.raises(C2LError, match="resample by resample"):
        a.minus(metrics_of(*changed), "mean")


def test_an_average_is_of_every_resample():
    scores, truth, patients = sample()
    a, b = metrics_of(scores, truth, patients), metrics_of(-scores, truth, patients)
    both = average([a, b])
    np.testing.assert_allclose(both.values, (a.values + b.values) / 2)
    np.testing.assert_allclose(both.resamples, (a.resamples + b.resamples) / 2)
    with pytest.raises(C2LError, match="resample by resample"):
        average([a, metrics_of(scores, truth, patients, seed=1)])
    with pytest.raises(C2LError, match="different metrics"):
        average([a, auroc(scores, truth, patients, 50).metrics(NAMES, {})])


def few_labels(scores, lacking):
    """Metrics of a run that skipped one label, and AUROCs of the other labels."""
    _, truth, patients = sample()
    scores = scores.copy()
    scores[:, NAMES.index(lacking)] = np.nan
    kept = [i for i, name in enumerate(NAMES) if name != lacking]
    all_but_one = auroc(scores, truth, patients, 50).metrics(NAMES, {"mean": np.array([True, True, True])})
    per_label = auroc(sample()[0][:, kept], truth[:, kept], patients, 50)
    return replace(all_but_one, skipped_labels=lacking), per_label


def test_seeds_that_learnt_other_labels_are_averaged_over_their_own_and_paired_seed_by_seed():
    scores, _, _ = sample()
    (mass, without_mass), (edema, without_edema) = few_labels(scores, "Mass"), few_labels(scores, "Edema")
    mine = average([mass, edema])
    by_hand = (without_mass.per_label.mean() + without_edema.per_label.mean()) / 2
    assert mine["mean"].value == pytest.approx(by_hand)
    assert str(mine["Mass"]) == "n/a"
    worse = average([few_labels(-scores, lacking)[0] for lacking in ("Mass", "Edema")])
    assert mine.minus(worse, "mean").value == pytest.approx(2 * (by_hand - 0.5))  # the negated scores have 1 - AUROC
    for others in ([edema, mass], [mass, mass], [mass], [mass, replace(mass, skipped_labels="")]):
        with pytest.raises(C2LError, match=r"same labels.*one skipped Mass; Edema"):
            mine.minus(average(others), "mean")
    assert average([mass, mass]).minus(mass, "mean").value == 0


def test_figures_come_back_as_they_were_saved(tmp_path):
    a = replace(metrics_of(*sample()), skipped_labels="Pneumonia")
    a.save(tmp_path)
    again = Metrics.load(tmp_path)
    assert (again.names, again.sample, again.skipped_labels) == (a.names, a.sample, "Pneumonia")
    np.testing.assert_array_equal(again.resamples, a.resamples)
    assert a.minus(again, "mean").value == 0


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(C2LError, match="is missing"):
        Metrics.load(tmp_path)
    path = metrics_of(*sample()).save(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(C2LError, match=f"{FILE} is damaged"):
        Metrics.load(tmp_path)
    with pytest.raises(C2LError, match="no metric is called 'maen'; expected one of: Mass"):
        metrics_of(*sample())["maen"]
