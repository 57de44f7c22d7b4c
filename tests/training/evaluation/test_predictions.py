"""Predictions, their metrics, and results on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from oracles.auroc import auroc as pair_by_pair
from sklearn.metrics import cohen_kappa_score

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.arrays import save_npz
from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.predictions import (
    KAPPA,
    MIN_CASES,
    Predictions,
    measure,
    tuning_labels,
    tuning_metric,
)
from c2l_models.training.evaluation.result import Result
from c2l_models.training.evaluation.tasks import load_task

CHEST = ("Mass", "Edema", "Hernia")


def chest(films=80, positives_of_edema=True):
    rng = np.random.default_rng(0)
    targets = (rng.random((films, 3)) < [0.4, 0.3, 0.1]).astype(float)
    if not positives_of_edema:
        targets[:, 1] = 0
    scores = targets + rng.normal(size=targets.shape)
    return Predictions("chestxray14", CHEST, scores, targets, rng.integers(0, 20, films).astype(str))


def test_figures_are_each_labels_and_the_means():
    predictions = chest()
    metrics = measure(predictions, load_task("chestxray14"), bootstrap=20)
    assert metrics.names == (*CHEST, "mean", "mean without Hernia")
    each = [pair_by_pair(predictions.scores[:, i], predictions.targets[:, i]) for i in range(3)]
    np.testing.assert_allclose(metrics.values, [*each, np.mean(each), np.mean(each[:2])])
    assert metrics.resamples.shape == (20, 5)


def test_a_label_with_one_class_is_not_available_and_not_counted():
    metrics = measure(chest(positives_of_edema=False), load_task("chestxray14"), bootstrap=20)
    assert str(metrics["Edema"]) == "n/a"
    assert metrics["mean"].value == pytest.approx((metrics["Mass"].value + metrics["Hernia"].value) / 2)
    assert metrics["mean without Hernia"].value == metrics["Mass"].value


@pytest.mark.parametrize("yes", [0.0, 0.5])
def test_a_grade_is_the_number_of_steps_passed(yes):
    rng = np.random.default_rng(2)
    grades = rng.integers(0, 5, 120)
    targets = (grades[:, None] >= [1, 2, 3, 4]).astype(float)
    scores = yes + targets - 0.5 + rng.normal(0, 0.4, targets.shape)
    labels = tuple(f"kl_grade ≥ {step}" for step in (1, 2, 3, 4))
    predictions = Predictions("knee_kl", labels, scores, targets, rng.integers(0, 40, 120).astype(str), yes)
    metrics = measure(predictions, load_task("knee_kl"), bootstrap=20)
    assert metrics.names == (*labels, KAPPA)
    given = [sum(score > yes for score in row) for row in scores]
    assert metrics[KAPPA].value == pytest.approx(cohen_kappa_score(grades, given, weights="quadratic"))
    assert load_task("knee_kl").headline in metrics.names


def knees(scores):
    grades = np.arange(20) % 5
    targets = (grades[:, None] >= [1, 2, 3, 4]).astype(float)
    labels = tuple(f"kl_grade ≥ {step}" for step in (1, 2, 3, 4))
    return Predictions("knee_kl", labels, scores + targets, targets, np.arange(20).astype(str), threshold=0.5)


def test_there_is_no_grade_where_a_step_could_not_be_learnt():
    scores = np.zeros((20, 4))
    assert measure(knees(scores), load_task("knee_kl"), bootstrap=5)[KAPPA].value == 1
    scores[:, 3] = np.nan
    metrics = measure(knees(scores), load_task("knee_kl"), bootstrap=5)
    assert str(metrics[KAPPA]) == str(metrics["kl_grade ≥ 4"]) == "n/a"
    assert metrics["kl_grade ≥ 3"].value == 1


def test_labels_that_could_not_be_learnt_are_told():
    predictions = chest()
    assert measure(predictions, load_task("chestxray14"), bootstrap=5).skipped_labels == ""
    predictions.scores[:, [0, 2]] = np.nan
    metrics = measure(predictions, load_task("chestxray14"), bootstrap=5)
    assert metrics.skipped_labels == "Mass, Hernia"
    assert metrics["mean"].value == metrics["Edema"].value
    grades = np.full((20, 4), [np.nan, 0, 0, 0])
    assert measure(knees(grades), load_task("knee_kl"), bootstrap=5).skipped_labels == "kl_grade ≥ 1"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused(broken):
    scores = np.zeros((20, 4))
    scores[3, 1] = broken
    with pytest.raises(C2LError, match="1 of 80 scores are not finite"):
        measure(knees(scores), load_task("knee_kl"), bootstrap=5)


def test_predictions_and_results_come_back_as_they_were_written(tmp_path):
    predictions = chest()
    predictions.save(tmp_path)
    again = Predictions.load(tmp_path)
    for name in ("scores", "targets", "patients"):
        np.testing.assert_array_equal(getattr(again, name), getattr(predictions, name))
    assert (again.task, again.labels, again.threshold) == ("chestxray14", CHEST, 0.0)
    metrics = measure(predictions, load_task("chestxray14"), bootstrap=20)
    result = Result("finetune", "a release", "resnet18", "chestxray14", 0, metrics, {"seconds": 1.5})
    assert not Result.is_done(tmp_path)
    result.write(tmp_path)
    assert Result.is_done(tmp_path)
    found = Result.read(tmp_path)
    assert (found.kind, found.initialization, found.facts) == ("finetune", "a release", {"seconds": 1.5})
    assert found.metrics.minus(metrics, "mean").value == 0


def test_what_is_not_available_is_null_in_json(tmp_path):
    metrics = measure(chest(positives_of_edema=False), load_task("chestxray14"), bootstrap=20)
    path = Result("knn", "a release", "resnet18", "chestxray14", 0, metrics, {}).write(tmp_path)
    written = json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN is not valid JSON
    assert written["figures"]["Edema"] == {"value": None, "low": None, "high": None}
    assert written["figures"]["Mass"]["value"] == pytest.approx(metrics["Mass"].value, abs=1e-4)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    for load in (Predictions.load, Result.read):
        with pytest.raises(C2LError, match="finished run"):
            load(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "result.json").write_text('{"kind": "probe"')
    for load in (Predictions.load, Result.read):
        with pytest.raises(C2LError, match="is damaged"):
            load(tmp_path)


def test_files_of_earlier_versions_are_read(tmp_path):
    """The files keep the keys `unlearnt`, `yes` and `start`. The attributes have new names."""
    arrays = {"values": np.array([0.7]), "resamples": np.array([[0.6], [0.8]])}
    save_npz(tmp_path / "figures.npz", {"names": ["Mass"], "sample": "ab", "unlearnt": "Edema"}, arrays)
    assert Metrics.load(tmp_path).skipped_labels == "Edema"
    one = np.zeros((1, 1))
    arrays = {"scores": one, "targets": one, "patients": np.array(["a"])}
    save_npz(tmp_path / "predictions.npz", {"task": "folder", "labels": ["Mass"], "yes": 0.5}, arrays)
    assert Predictions.load(tmp_path).threshold == 0.5
    head = {"kind": "probe", "start": "random:resnet18", "architecture": "resnet18", "task": "folder", "seed": 0}
    (tmp_path / "result.json").write_text(json.dumps(head | {"figures": {}, "facts": {}}))
    assert Result.read(tmp_path).initialization == "random:resnet18"


def test_settings_are_chosen_on_the_headline_without_labels_of_few_images():
    rng = np.random.default_rng(4)
    names = (*CHEST, "Nodule")
    labels = (rng.random((200, 4)) < [0.4, 0.3, 0.3, 0.5]).astype(float)
    labels[:, 1] = np.arange(200) < MIN_CASES - 1  # Edema has one positive too few
    labels[rng.random(200) < 0.2, 3] = np.nan
    scores = np.nan_to_num(labels) + rng.normal(size=labels.shape)
    each = {i: pair_by_pair(scores[known, i], labels[known, i]) for i, known in enumerate(~np.isnan(labels).T)}
    assert tuning_metric(load_task("chestxray14"), names, scores, labels) == pytest.approx((each[0] + each[3]) / 2)
    assert tuning_metric(load_task("folder"), names, scores, labels) == pytest.approx((each[0] + each[2] + each[3]) / 3)
    labels[MIN_CASES - 1, 1] = 1
    assert tuning_labels(load_task("chestxray14"), names, labels).tolist() == [True, True, False, True]


def test_settings_of_a_graded_task_are_chosen_on_its_own_step():
    grades = np.arange(120) % 5
    labels = (grades[:, None] >= [1, 2, 3, 4]).astype(float)
    scores = labels + np.random.default_rng(3).normal(size=labels.shape)
    names = tuple(f"kl_grade ≥ {step}" for step in (1, 2, 3, 4))
    each = [pair_by_pair(scores[:, i], labels[:, i]) for i in range(4)]
    task = load_task("knee_kl")
    assert tuning_metric(task, names, scores, labels) == pytest.approx(each[1])
    assert tuning_metric(replace(task, headline=KAPPA), names, scores, labels) == pytest.approx(np.mean(each))


def test_with_few_images_the_most_balanced_label_decides():
    labels = np.zeros((8, 3))
    labels[:3, 0] = labels[:1, 1] = 1
    assert tuning_labels(load_task("folder"), ("a", "b", "c"), labels).tolist() == [True, False, False]
    scores = np.array([[3.0, 2, 1, 2.5, 0, 0, 0, 0]] * 3).T
    assert tuning_metric(load_task("folder"), ("a", "b", "c"), scores, labels) == pytest.approx(13 / 15)
    assert np.isnan(tuning_metric(load_task("folder"), ("c",), scores[:, :1], labels[:, 2:]))


def test_a_fold_is_ranked_by_its_own_model():
    """Scores of fold 1 are shifted. Folds with one class of a label, or without its scores, do not count for it."""
    labels = np.array([[1, 1], [0, 0], [0, 1], [1, 1], [0, 1], [0, 1], [0, 0], [0, 1]], float).repeat(10, axis=0)
    folds = np.array([0, 0, 0, 1, 1, 1, 2, 2]).repeat(10)
    scores = np.array([[2, 2], [1, 3], [3, 1], [9, 0], [7, 0], [8, 0], [0, np.nan], [0, np.nan]]).repeat(10, axis=0)
    assert tuning_metric(load_task("folder"), ("a", "b"), scores, labels, folds) == pytest.approx((0.75 + 0) / 2)
