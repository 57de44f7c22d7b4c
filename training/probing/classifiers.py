"""Classifiers on frozen features: linear probe or k-NN."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .knn import knn_scores
from .linear_probe import Floats, linear_probe

Classifier = Literal["linear", "knn"]
TITLES = {"linear": "Linear probe", "knn": "k-NN"}


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


def fit_and_score(
    classifier: Classifier,
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    test_features: Floats,
    seed: int = 0,
) -> ClassifierScores:
    """Fit a classifier on features [N, D] and labels [N, L] (0, 1 or NaN), and score test features [M, D].

    Args:
        classifier: "linear" or "knn".
        train_features, train_labels: features [N, D] and labels [N, L] of the training part.
        train_patients: patient ids [N]. The penalty of the linear probe is tuned on held-out patients.
        test_features: features [M, D] of the test part.
        seed: seed of the tuning split.

    Raises:
        C2LError: features that are not finite, or too few patients to tune a linear probe.
    """
    if classifier == "knn":
        shares = knn_scores(train_features, train_labels, test_features)
        return ClassifierScores(shares, threshold=0.5, facts={})
    fitted = linear_probe(train_features, train_labels, train_patients, test_features, seed)
    return ClassifierScores(
        fitted.scores, threshold=0.0, facts={"C": fitted.C, "tuning_auroc": round(fitted.tuning_auroc, 4)}
    )
