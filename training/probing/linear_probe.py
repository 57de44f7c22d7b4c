"""Linear probe: logistic regression on frozen features, with a penalty tuned on held-out patients."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from c2l_models.errors import C2LError

from ..evaluation.classification_metrics import auroc
from ..features import check_finite
from ..patient_splits import split_patients

Floats = NDArray[np.floating]

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties to try. All labels of a task use the same one."""
HELD_OUT = 0.2
"""Share of the training patients held out to tune the penalty."""
TOLERANCE, MAX_ITERATIONS = 1e-5, 1000


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a fitted linear probe.

    Attributes:
        scores: log odds, float32 [M, L]; NaN for a label with one class in the training part.
        C: chosen inverse penalty.
        tuning_auroc: mean AUROC on the held-out training patients with this penalty.
    """

    scores: NDArray[np.float32]
    C: float
    tuning_auroc: float


def linear_probe(
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    test_features: Floats,
    seed: int = 0,
) -> ProbeResult:
    """Standardize features, tune C on held-out training patients, refit on the training part, score the test part.

    Args:
        train_features: [N, D].
        train_labels: [N, L]; 0, 1 or NaN (unknown: the image is ignored for this label).
        train_patients: patient ids [N]; during tuning, no patient is both fitted and evaluated.
        test_features: [M, D].
        seed: seed of the split by patients.

    Raises:
        C2LError: features that are not finite, or too few patients to tune.
    """
    check_finite(train_features, test_features)
    held_out = split_patients(train_patients, HELD_OUT, "probe_tuning", seed)
    fitted_on = (train_features[~held_out], train_labels[~held_out])
    tuned = {
        c: auroc(_scores(*fitted_on, train_features[held_out], c), train_labels[held_out], bootstrap=0).mean
        for c in (C_GRID if held_out.any() and not held_out.all() else ())
    }
    best = max(tuned, key=lambda c: tuned[c], default=np.nan)
    if np.isnan(tuned.get(best, np.nan)):
        raise C2LError(
            f"{held_out.sum()} of {len(held_out)} training images are held out to tune the penalty; expected a label "
            "with both classes in both parts, found none; use a training part with more patients"
        )
    return ProbeResult(_scores(train_features, train_labels, test_features, best), best, tuned[best])


def _scores(train: Floats, labels: Floats, test: Floats, c: float) -> NDArray[np.float32]:
    """Log odds of each label, [M, L]."""
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    columns = [_scores_of_label(train, column, test, c) for column in labels.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _scores_of_label(train: Floats, labels: Floats, test: Floats, c: float) -> Floats:
    known = ~np.isnan(labels)
    if len(np.unique(labels[known])) < 2:
        return np.full(len(test), np.nan)
    model = LogisticRegression(C=c, solver="lbfgs", tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        # With few images and a large C, lbfgs stops at float32 precision. Such a fit is good enough to compare C.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train[known], labels[known])
    scores: Floats = model.decision_function(test)
    return scores
