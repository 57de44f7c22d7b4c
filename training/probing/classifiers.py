"""What stands on frozen features: a linear probe, or nothing but neighbours."""

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
    """A classifier's scores on a test part.

    Attributes:
        scores: float32 [M, L], higher is more likely; NaN for a label that the training part cannot teach.
        threshold: the score above which the answer is yes.
        facts: what was tuned, as JSON knows it.
    """

    scores: NDArray[np.float32]
    threshold: float
    facts: dict[str, Any]


def fit_and_score(
    classifier: Classifier,
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    features: Floats,
    seed: int = 0,
) -> ClassifierScores:
    """Learn from features [N, D] and labels [N, L] (0, 1 or NaN), and answer for features [M, D].

    Raises:
        C2LError: features that are not finite; too few patients to tune a linear probe on.
    """
    if classifier == "knn":
        shares = knn_scores(train_features, train_labels, features)
        return ClassifierScores(shares, threshold=0.5, facts={})
    fitted = linear_probe(train_features, train_labels, train_patients, features, seed)
    return ClassifierScores(
        fitted.scores, threshold=0.0, facts={"C": fitted.C, "tuning_auroc": round(fitted.tuning_auroc, 4)}
    )
