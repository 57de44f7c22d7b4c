"""Classifiers on frozen features: linear probe or k-NN, fitted and scored as a task says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from c2l_models.errors import C2LError

from ..evaluation.predictions import tuning_metric
from ..evaluation.tasks import Task
from ..store.image_store import ImageStore
from .knn import knn_scores
from .linear_probe import C_GRID, Floats, TuningMetric, linear_probe, tune_penalty
from .readouts import Features, FeaturesOf

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
    features_of: FeaturesOf | Mapping[str, FeaturesOf],
    store: ImageStore,
    task: Task,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ClassifierScores:
    """Fit a classifier on features of a task's training rows, and score its evaluated rows in their order.

    If the task has folds of patients, each fold is scored by a classifier that was fitted and tuned on the other folds.
    The scores of all folds are one sample: log odds of models with an unpenalised intercept, or shares of neighbours.
    A label that cannot be learned in one of the folds has no scores.

    Of several features, the linear probe takes the one with the highest tuning metric, chosen like the penalty on folds
    of the patients that it is fitted on; of equal ones the first. Only the chosen features are tested.

    Args:
        classifier: "linear" or "knn".
        features_of: maps rows [N] to features [N, D]; called once for each part. Or several such functions, by name.
        store, task: labels and patients.
        seed: seed of the tuning folds. The folds of the task do not depend on it.
        device: torch device of the linear probe's fits.

    Raises:
        C2LError: features that are not finite, too few patients to tune a linear probe, or several features for k-NN.
    """
    candidates = features_of if isinstance(features_of, Mapping) else {"": features_of}
    if len(candidates) > 1 and classifier != "linear":
        raise C2LError(f"expected the linear probe to choose among {len(candidates)} features, found {classifier}")
    train, (names, labels) = task.train_rows(store), task.names_and_labels(store)
    metric = partial(tuning_metric, task, names)
    features = {name: of(train) for name, of in candidates.items()}
    targets, patients = labels[train], store.patients[train]
    if not task.folds:
        test_rows = task.evaluated_rows(store)
        parts = (features, targets, patients, lambda name: candidates[name](test_rows))
        return _choose_and_score(classifier, *parts, metric, seed, device)
    folds = task.folds_of(patients)
    scores, facts = np.empty(targets.shape, np.float32), []
    for fold in np.unique(folds):
        test = folds == fold
        fitting = {name: of_all[~test] for name, of_all in features.items()}
        parts = (fitting, targets[~test], patients[~test], partial(_rows_of, features, test))
        fitted = _choose_and_score(classifier, *parts, metric, seed, device)
        scores[test] = fitted.scores
        facts.append(fitted.facts)
    scores[:, np.isnan(scores).any(axis=0)] = np.nan
    by_fold = {key: [of_fold[key] for of_fold in facts] for key in facts[0]}
    return ClassifierScores(scores, THRESHOLDS[classifier], {"folds": task.folds, **by_fold})


def _rows_of(features: Mapping[str, Features], rows: NDArray[np.bool_], name: str) -> Features:
    return features[name][rows]


def _choose_and_score(
    classifier: Classifier,
    features: Mapping[str, Features],
    labels: Floats,
    patients: NDArray[np.str_],
    test_features_of: Callable[[str], Features],
    metric: TuningMetric,
    seed: int,
    device: str | torch.device,
) -> ClassifierScores:
    """Fit and score as `fit_and_score`, with the features of the highest tuning metric if there are several."""
    if len(features) == 1:
        ((name, only),) = features.items()
        return fit_and_score(classifier, only, labels, patients, test_features_of(name), metric, seed, device)
    tuned = {name: tune_penalty(part, labels, patients, metric, seed, device) for name, part in features.items()}
    best = max(tuned, key=lambda name: tuned[name].value)
    parts = (features[best], labels, patients, test_features_of(best), metric, seed, device)
    fitted = fit_and_score(classifier, *parts, penalties=(tuned[best].C,))
    tried = {name: round(one.value, 4) for name, one in tuned.items()}
    chosen = {"tuning_auroc": tried[best], "features": best, "tuning_auroc_by_features": tried}
    return replace(fitted, facts=fitted.facts | chosen)


def fit_and_score(
    classifier: Classifier,
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    test_features: Floats,
    metric: TuningMetric,
    seed: int = 0,
    device: str | torch.device = "cpu",
    penalties: Sequence[float] = C_GRID,
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
        penalties: values of C that the linear probe chooses from.

    Raises:
        C2LError: features that are not finite, or too few patients to tune a linear probe.
    """
    if classifier == "knn":
        shares = knn_scores(train_features, train_labels, test_features)
        return ClassifierScores(shares, THRESHOLDS[classifier], facts={})
    fitted = linear_probe(train_features, train_labels, train_patients, test_features, metric, seed, device, penalties)
    facts = {"C": fitted.C, "tuning_auroc": round(fitted.tuning_auroc, 4)}
    return ClassifierScores(fitted.scores, THRESHOLDS[classifier], facts)
