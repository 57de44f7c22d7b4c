"""Linear probe: logistic regression on frozen features, with a penalty tuned by cross-validation over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from c2l_models.errors import C2LError
from c2l_models.progress import stage

from ..features import check_finite
from ..patient_splits import patient_folds
from .logistic_regression import fit_logistic_regressions

Floats = NDArray[np.floating]
TuningMetric = Callable[[Floats, Floats, NDArray[np.int64]], float]
"""Scores [N, L], labels [N, L] and fold numbers [N] -> the value that the penalty is chosen by."""

C_GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Inverse penalties to try, the strongest penalty first. All labels of a task use the same one."""
TUNING_FOLDS = 5
"""Number of patient folds of the training part that the penalty is tuned on."""
CONSTANT = 1e-6
"""A feature that varies by less than this share of its mean is constant up to rounding, and is not scaled."""


class TunedPenalty(NamedTuple):
    """The chosen inverse penalty C, and the tuning metric with it."""

    C: float
    value: float


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a fitted linear probe.

    Attributes:
        scores: log odds, float32 [M, L]; NaN for a label with one class in the training part.
        C: chosen inverse penalty.
        tuning_auroc: value of the tuning metric with this penalty; NaN if there was only one to choose from.
    """

    scores: NDArray[np.float32]
    C: float
    tuning_auroc: float


def linear_probe(
    train_features: Floats,
    train_labels: Floats,
    train_patients: NDArray[np.str_],
    test_features: Floats,
    metric: TuningMetric,
    seed: int = 0,
    device: str | torch.device = "cpu",
    penalties: Sequence[float] = C_GRID,
) -> ProbeResult:
    """Standardize features, tune C on folds of training patients, refit on the training part, score the test part.

    Every training image is scored once, by a model that saw no image of its patient. The chosen C has the highest
    metric of these scores. Of equal ones it has the strongest penalty.

    Args:
        train_features: [N, D].
        train_labels: [N, L]; 0, 1 or NaN (unknown: the image is ignored for this label).
        train_patients: patient ids [N]; during tuning, no patient is both fitted and evaluated.
        test_features: [M, D].
        metric: tuning metric.
        seed: seed of the tuning folds.
        device: torch device of the fits.
        penalties: values of C to choose from, the strongest penalty (smallest C) first. A single one is not tuned.

    Raises:
        C2LError: features that are not finite, or too few patients to tune.
    """
    check_finite(train_features, test_features)
    chosen = TunedPenalty(penalties[0], np.nan)
    if len(penalties) > 1:
        chosen = tune_penalty(train_features, train_labels, train_patients, metric, seed, device, penalties)
    scores = _scores(train_features, train_labels, test_features, [chosen.C], device)[0]
    return ProbeResult(scores, chosen.C, chosen.value)


def tune_penalty(
    features: Floats,
    labels: Floats,
    patients: NDArray[np.str_],
    metric: TuningMetric,
    seed: int = 0,
    device: str | torch.device = "cpu",
    penalties: Sequence[float] = C_GRID,
) -> TunedPenalty:
    """Choose the penalty on folds of training patients; arguments and errors as for `linear_probe`."""
    check_finite(features)
    folds = patient_folds(patients, TUNING_FOLDS, "probe_tuning", seed)
    scores = np.full((len(penalties), *labels.shape), np.nan, np.float32)
    with stage("tuning the penalty", len(np.unique(folds)), "folds") as line:
        for fold in np.unique(folds):
            held_out = folds == fold
            scores[:, held_out] = _scores(features[~held_out], labels[~held_out], features[held_out], penalties, device)
            line.advance()
    values = [metric(scores_of_penalty, labels, folds) for scores_of_penalty in scores]
    if np.isnan(values).all():
        raise C2LError(
            f"expected a fold of training patients with both classes of a label to tune the penalty on, found none in "
            f"{len(labels)} images of {len(set(patients.tolist()))} patients; use a training part with more patients"
        )
    best = int(np.nanargmax(values))
    return TunedPenalty(penalties[best], values[best])


def has_tuning_fold(labels: Floats, patients: NDArray[np.str_], seed: int = 0) -> bool:
    """Whether `tune_penalty` can choose by labels [N, L]: one has both classes in a fold, and in the other folds."""
    folds = patient_folds(patients, TUNING_FOLDS, "probe_tuning", seed)
    parts = ((labels[folds == fold], labels[folds != fold]) for fold in np.unique(folds))
    return any((_both_classes(held_out) & _both_classes(fitted)).any() for held_out, fitted in parts)


def _both_classes(labels: Floats) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return found


def _scores(
    train: Floats, labels: Floats, test: Floats, penalties: Sequence[float], device: str | torch.device
) -> NDArray[np.float32]:
    """Log odds of each label with each penalty, [P, M, L]."""
    if not len(train):
        return np.full((len(penalties), len(test), labels.shape[1]), np.nan, np.float32)
    fitted, scored, known = (
        torch.as_tensor(part, dtype=torch.float64, device=device) for part in (train, test, labels)
    )
    mean, spread = fitted.mean(dim=0), fitted.std(dim=0, correction=0)
    spread = torch.where(spread > CONSTANT * mean.abs(), spread, 1)
    coefficients, intercepts = fit_logistic_regressions((fitted - mean) / spread, known, penalties)
    scores = (scored - mean) / spread @ coefficients.mT + intercepts[:, None]
    return scores.float().cpu().numpy()
