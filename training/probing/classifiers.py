"""Classifiers on frozen features: linear probe or k-NN, fitted and scored as a task says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluation.predictions import tuning_metric
from ..evaluation.tasks import Task
from ..patient_splits import patient_folds
from ..store.image_store import ImageStore
from .knn import knn_scores
from .linear_probe import Floats, TuningMetric, linear_probe

Classifier = Literal["linear", "knn"]
TITLES = {"linear": "Linear probe", "knn": "k-NN"}
THRESHOLDS = {"linear": 0.0, "knn": 0.5}
"""Scores above it mean "positive": log odds of a linear probe, shares of neighbours."""


@dataclass(frozen=True)
class ClassifierScores:
    """Scores of a classifier for M test images and L labels.

    Attributes:
        scores: float32 [M, L]; higher means more likely positive. NaN for a label with one class in the training part.
        threshold: scores above it mean "positive".
        facts: tuned hyperparameters, as JSON values.
    """

    scores: NDArray[np.float32]
    threshold: float
    facts: dict[str, Any]


def score_task(
    classifier: Classifier,
    features_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    store: ImageStore,
    task: Task,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ClassifierScores:
    """Fit a classifier on features of a task's training rows, and score its evaluated rows in their order.

    If the task has folds of patients, each fold is scored by a classifier that was fitted and tuned on the other folds.
    The scores of all folds are one sample: log odds of models with an unpenalised intercept, or shares of neighbours.
    A label that cannot be learned in one of the folds has no scores.

    Args:
        classifier: "linear" or "knn".
        features_of: maps rows [N] to features [N, D]. Called once for each part.
        store, task: labels and patients.
        seed: seed of the tuning folds. The folds of the task do not depend on it.
        device: torch device of the linear probe's fits.

    Raises:
        C2LError: features that are not finite, or too few patients to tune a linear probe.
    """
    train, labels = task.train_rows(store), task.labels(store)
    metric = partial(tuning_metric, task, task.label_names(store))
    features, targets, patients = features_of(train), labels[train], store.patients[train]
    if not task.folds:
        test_features = features_of(task.evaluated_rows(store))
        return fit_and_score(classifier, features, targets, patients, test_features, metric, seed, device)
    folds = patient_folds(patients, task.folds, "out_of_fold")
    scores, facts = np.empty(targets.shape, np.float32), []
    for fold in np.unique(folds):
        test = folds == fold
        parts = (features[~test], targets[~test], patients[~test], features[test])
        fitted = fit_and_score(classifier, *parts, metric, seed, device)
        scores[test] = fitted.scores
        facts.append(fitted.facts)
    scores[:, np.isnan(scores).any(axis=0)] = np.nan
    by_fold = {key: [of_fold[key] for of_fold in facts] for key in facts[0]}
    return ClassifierScores(scores, THRESHOLDS[classifier], {"folds": task.folds, **by_fold})


def fit_and_score(
    classifier: Classifier,
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    test_features: Floats,
    metric: TuningMetric,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ClassifierScores:
    """Fit a classifier on features [N, D] and labels [N, L] (0, 1 or NaN), and score test features [M, D].

    Args:
        classifier: "linear" or "knn".
        train_features, train_labels: features [N, D] and labels [N, L] of the training part.
        train_patients: patient ids [N]. The penalty of the linear probe is tuned on folds of patients.
        test_features: features [M, D] of the test part.
        metric: metric that the penalty is tuned on.
        seed: seed of the tuning folds.
        device: torch device of the linear probe's fits.

    Raises:
        C2LError: features that are not finite, or too few patients to tune a linear probe.
    """
    if classifier == "knn":
        shares = knn_scores(train_features, train_labels, test_features)
        return ClassifierScores(shares, THRESHOLDS[classifier], facts={})
    fitted = linear_probe(train_features, train_labels, train_patients, test_features, metric, seed, device)
    facts = {"C": fitted.C, "tuning_auroc": round(fitted.tuning_auroc, 4)}
    return ClassifierScores(fitted.scores, THRESHOLDS[classifier], facts)
