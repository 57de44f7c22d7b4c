"""Metrics: saving, paired differences, and averages over runs."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import interval

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.classification_metrics import auroc
from c2l_models.training.evaluation.metrics import FILE, Metrics, average
from c2l_models.training.evaluation.result import estimate_as_json

NAMES = ("Mass", "Edema", "Hernia")
SEEDS = (0, 1)


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
    by_patient = a.jackknife[:, :2].mean(axis=1) - b.jackknife[:, :2].mean(axis=1)
    assert (paired.low, paired.high) == pytest.approx(interval.expanded(by_resample, by_patient))
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


def runs_of(*signals):
    """Runs on one sample; the scores of each are its signal and noise of its own."""
    _, truth, patients = sample()
    rng = np.random.default_rng(5)
    return [metrics_of(signal * truth + rng.normal(size=truth.shape), truth, patients, 200) for signal in signals]


def over_seeds(runs, column, stream=0):
    """The mean over the seeds drawn in each resample, one resample after the other."""
    drawn = interval.drawn_seeds(len(runs), len(runs[0].resamples), stream)
    return np.array([np.mean([runs[s].resamples[r, column] for s in seeds]) for r, seeds in enumerate(drawn)])


def jackknife_of(runs, column):
    return np.mean([run.jackknife[:, column] for run in runs], axis=0)


def test_an_average_resamples_patients_and_seeds():
    runs = runs_of(0.2, 0.5, 1)
    both = average(runs, (0, 1, 2))
    np.testing.assert_allclose(both.values, (runs[0].values + runs[1].values + runs[2].values) / 3)
    np.testing.assert_allclose(both.resamples[:, 1], over_seeds(runs, 1))
    found = both["Edema"]
    expected = interval.expanded(over_seeds(runs, 1), jackknife_of(runs, 1), [[run.values[1] for run in runs]])
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.seeds, both.num_seeds, runs[0]["Edema"].seeds) == (3, 3, 1)
    assert estimate_as_json(found)["seeds"] == 3
    assert "seeds" not in estimate_as_json(runs[0]["Edema"])
    alone = runs[0]["Edema"]
    assert found.high - found.low > 1.5 * (alone.high - alone.low), "seeds differ more than resamples of patients"
    assert average(runs[:1], (7,)) is runs[0]


def test_averages_of_other_samples_metrics_or_seeds_are_refused():
    scores, truth, patients = sample()
    a = metrics_of(scores, truth, patients)
    with pytest.raises(C2LError, match="resample by resample"):
        average([a, metrics_of(scores, truth, patients, seed=1)], (0, 1))
    with pytest.raises(C2LError, match="different metrics"):
        average([a, auroc(scores, truth, patients, 50).metrics(NAMES, {})], (0, 1))
    with pytest.raises(C2LError, match=r"a different seed for each of 2 runs, found \[3, 3\]"):
        average([a, a], (3, 3))


def test_differences_draw_the_same_seeds_for_both_sides_if_both_used_them():
    one, two = runs_of(0.2, 0.5, 1), runs_of(0.3, 0.6, 1.1)
    two = [replace(run, values=run.values - 0.05) for run in two]
    values = [[run.values[0] for run in runs] for runs in (one, two)]
    without = jackknife_of(one, 0) - jackknife_of(two, 0)

    paired = average(one, (0, 1, 2)).minus(average(two, (0, 1, 2)), "Mass")
    expected = interval.expanded(over_seeds(one, 0) - over_seeds(two, 0), without, [np.subtract(*values)])
    assert (paired.low, paired.high) == pytest.approx(expected)

    apart = average(one, (0, 1, 2)).minus(average(two, (3, 4, 5)), "Mass")
    expected = interval.expanded(over_seeds(one, 0) - over_seeds(two, 0, stream=1), without, values)
    assert (apart.low, apart.high) == pytest.approx(expected)
    assert apart.high - apart.low > paired.high - paired.low


def test_a_single_run_minus_an_average_draws_the_seeds_of_the_average():
    (single,), many = runs_of(1), runs_of(0.2, 0.5)
    found = single.minus(average(many, (0, 1)), "Mass")
    by_resample = single.resamples[:, 0] - over_seeds(many, 0)
    without = single.jackknife[:, 0] - jackknife_of(many, 0)
    expected = interval.expanded(by_resample, without, [[run.values[0] for run in many]])
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.seeds == 2


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
    mine = average([mass, edema], SEEDS)
    by_hand = (without_mass.per_label.mean() + without_edema.per_label.mean()) / 2
    assert mine["mean"].value == pytest.approx(by_hand)
    assert str(mine["Mass"]) == "n/a"
    worse = average([few_labels(-scores, lacking)[0] for lacking in ("Mass", "Edema")], SEEDS)
    assert mine.minus(worse, "mean").value == pytest.approx(2 * (by_hand - 0.5))  # the negated scores have 1 - AUROC
    for others in ([edema, mass], [mass, mass], [mass], [mass, replace(mass, skipped_labels="")]):
        with pytest.raises(C2LError, match=r"same labels.*one skipped Mass; Edema"):
            mine.minus(average(others, SEEDS[: len(others)]), "mean")
    assert average([mass, mass], SEEDS).minus(mass, "mean").value == 0


def test_figures_come_back_as_they_were_saved(tmp_path):
    a = replace(metrics_of(*sample()), skipped_labels="Pneumonia")
    a.save(tmp_path)
    again = Metrics.load(tmp_path)
    assert (again.names, again.sample, again.skipped_labels) == (a.names, a.sample, "Pneumonia")
    np.testing.assert_array_equal(again.resamples, a.resamples)
    np.testing.assert_array_equal(again.jackknife, a.jackknife)
    assert (a.minus(again, "mean").value, again.interval) == (0, "expanded")


def test_files_without_jackknife_values_have_percentile_intervals(tmp_path):
    a = metrics_of(*sample())
    replace(a, jackknife=None).save(tmp_path)
    old = Metrics.load(tmp_path)
    assert old.interval == "percentile"
    resamples = a.resamples[:, 0]
    assert (old["Mass"].low, old["Mass"].high) == pytest.approx(np.percentile(resamples, [2.5, 97.5]))
    b = metrics_of(-sample()[0], *sample()[1:])
    found = b.minus(old, "Mass")
    assert (found.low, found.high) == pytest.approx(np.percentile(b.resamples[:, 0] - resamples, [2.5, 97.5]))
    assert average([old, b], SEEDS).interval == "percentile"


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(C2LError, match="is missing"):
        Metrics.load(tmp_path)
    path = metrics_of(*sample()).save(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(C2LError, match=f"{FILE} is damaged"):
        Metrics.load(tmp_path)
    with pytest.raises(C2LError, match="no metric is called 'maen'; expected one of: Mass"):
        metrics_of(*sample())["maen"]
