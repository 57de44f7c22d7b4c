"""AUROC and quadratic weighted kappa, with patient-level bootstrap resamples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2l_models.errors import C2LError

from .arrays import sample_fingerprint
from .intervals import Estimate, Floats, bootstrap_patients, estimate_from_resamples
from .metrics import Metrics

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Auroc:
    """AUROC of each label, also on each bootstrap resample.

    Attributes:
        per_label: float64 [L]; NaN for a label with only one class or without scores.
        resamples: float64 [R, L]; NaN if the resample has only one class of the label.
        sample: fingerprint of labels, patients, R and seed. Two results with equal fingerprints can be paired.
    """

    per_label: Floats
    resamples: Floats
    sample: str

    @property
    def mean(self) -> float:
        """Mean over the labels that have both classes."""
        return self.mean_of().value

    def interval(self, label: int | None = None) -> tuple[float, float]:
        """The 95 % interval, low and high, of one label's AUROC; None: of the mean over labels."""
        found = self.mean_of() if label is None else self.label(label)
        return found.low, found.high

    def metrics(self, labels: Sequence[str], means: Mapping[str, Mask]) -> Metrics:
        """Named metrics: the AUROC of each label, then the means over the labels in each bool mask [L]."""
        values = [_mean(self.per_label, mask) for mask in means.values()]
        resamples = [_mean(self.resamples, mask) for mask in means.values()]
        return Metrics(
            (*labels, *means),
            np.append(self.per_label, values),
            np.column_stack([self.resamples, *resamples]),
            self.sample,
        )

    def label(self, index: int) -> Estimate:
        """One label's AUROC with its interval."""
        return estimate_from_resamples(float(self.per_label[index]), self.resamples[:, index])

    def mean_of(self, mask: Mask | None = None) -> Estimate:
        """Mean over the labels in a bool mask [L] (None: all) that have both classes, with its interval.

        If a resample has only one class of a label, its mean is over the other labels.
        """
        return estimate_from_resamples(float(_mean(self.per_label, mask)), _mean(self.resamples, mask))


def auroc(
    scores: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Auroc:
    """Area under the ROC curve of each label, with a patient-level bootstrap. Tied pairs count one half.

    A resample draws whole patients with replacement. The weight of an image is the number of times that its patient
    was drawn.

    Args:
        scores: float [N, L] or [N]; higher means more likely positive. Finite, or NaN in a label's whole column: the
            label then has no AUROC.
        labels: same shape; 0, 1 or NaN (unknown: the image is ignored for this label).
        patients: ids [N] of any type; None: every image is its own patient.
        bootstrap: number of resamples R; 0: every interval is NaN.
        seed: seed of the resampling. The same seed and patients always draw the same resamples.

    Raises:
        C2LError: shapes that do not match, scores that are not finite, or labels other than 0, 1 and NaN.
    """
    scores, labels, patients = _checked(scores, labels, patients)
    per_label, resamples = bootstrap_patients(
        lambda weights: _auroc_of_each(scores, labels, weights), patients, bootstrap, seed
    )
    sample = sample_fingerprint((labels.shape, bootstrap, seed), labels, patients)
    return Auroc(per_label, resamples, sample)


def weighted_kappa(
    predicted: ArrayLike, true: ArrayLike, patients: NDArray[Any], bootstrap: int = 1000, seed: int = 0
) -> tuple[float, Floats]:
    """Cohen's kappa of predicted and true grades with quadratic weights.

    1 - Σ_n (p_n - t_n)² / (Σ_n Σ_m (p_n - t_m)² / N). The denominator is the expected squared disagreement if the
    predicted grades were in random order.

    Args:
        predicted: predicted grades [N]; NaN: no prediction.
        true: true grades [N]; NaN: unknown, the image is ignored.
        patients: ids [N].
        bootstrap, seed: number of resamples R and seed, as for `auroc`, which draws the same resamples.

    Returns:
        Kappa and its values on the R resamples of whole patients, [R]. NaN if all grades are equal, or if the grade
        of an image with a known grade was not predicted.
    """
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    known = ~np.isnan(true)
    p, t = predicted[known], true[known]

    def statistic(weights: Floats) -> Floats:
        w = weights[known]
        n, sum_p, sum_t = w.sum(axis=0), p @ w, t @ w
        by_chance = n * ((p**2 + t**2) @ w) - 2 * sum_p * sum_t
        disagreement = n * ((p - t) ** 2 @ w)
        ratio = np.divide(disagreement, by_chance, out=np.full(len(n), np.nan), where=by_chance > 0)
        return 1 - ratio[:, None]

    values, resamples = bootstrap_patients(statistic, patients, bootstrap, seed)
    return float(values[0]), resamples[:, 0]


def _auroc_of_each(scores: Floats, labels: Floats, weights: Floats) -> Floats:
    """AUROC of each label with image weights: weights [N, R] -> [R, L]."""
    columns = range(scores.shape[1])
    return np.stack([_weighted_auroc(scores[:, i], labels[:, i], weights) for i in columns], axis=1)


def _weighted_auroc(scores: Floats, labels: Floats, weights: Floats) -> Floats:
    """Mann-Whitney statistic [R]: weight of correctly ordered pairs (ties: one half) / weight of all pairs."""
    if np.isnan(scores).any():
        return np.full(weights.shape[1], np.nan)
    positive, negative = labels == 1, labels == 0
    order = np.argsort(scores[negative], kind="stable")
    ranked = scores[negative][order]
    below = np.concatenate([np.zeros((1, weights.shape[1])), weights[negative][order].cumsum(axis=0)])
    lower = below[np.searchsorted(ranked, scores[positive], side="left")]
    lower_or_equal = below[np.searchsorted(ranked, scores[positive], side="right")]
    positive_weights = weights[positive]
    in_order = np.einsum("nr,nr->r", positive_weights, lower + lower_or_equal) / 2
    pairs = positive_weights.sum(axis=0) * below[-1]
    return np.divide(in_order, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _mean(values: Floats, mask: Mask | None) -> Floats:
    """Mean over the last axis of the values in the mask that are not NaN; NaN if all are NaN."""
    known = ~np.isnan(values) if mask is None else ~np.isnan(values) & mask
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)


def _checked(scores: ArrayLike, labels: ArrayLike, patients: ArrayLike | None) -> tuple[Floats, Floats, NDArray[Any]]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if scores.shape != labels.shape or scores.ndim not in (1, 2):
        raise C2LError(
            f"expected scores and labels of one shape, [N, L] or [N], found {scores.shape} and {labels.shape}"
        )
    broken = ~np.isfinite(scores) & ~np.isnan(scores).all(axis=0)
    if broken.any():
        raise C2LError(
            f"{broken.sum()} of {scores.size} scores are not finite; expected finite scores for every learned label"
        )
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise C2LError("expected labels 0, 1 and NaN, found others; convert grades to 0 and 1 first")
    ids = np.arange(len(scores)) if patients is None else np.asarray(patients)
    if ids.shape != (len(scores),):
        raise C2LError(f"expected one patient id for each of {len(scores)} images, found shape {ids.shape}")
    return scores.reshape(len(scores), -1), labels.reshape(len(labels), -1), ids
