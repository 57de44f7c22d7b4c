"""AUROC and quadratic weighted kappa, with patient-level bootstrap resamples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2l_models.errors import C2LError

from .arrays import sample_fingerprint
from .intervals import CHUNK, Bootstrapped, Floats, bootstrap_patients, draw_patients
from .metrics import Metrics

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Auroc:
    """AUROC of each label, also on each bootstrap resample.

    Attributes:
        per_label: float64 [L]; NaN for a label with only one class or without scores.
        resamples: float64 [R, L]; NaN if the resample has only one class of the label.
        jackknife: float64 [P, L], without each patient; NaN if only one class is left, or if R is 0.
        sample: fingerprint of labels, patients, R and seed. Two results with equal fingerprints can be paired.
    """

    per_label: Floats
    resamples: Floats
    jackknife: Floats
    sample: str

    def metrics(self, labels: Sequence[str], means: Mapping[str, Mask]) -> Metrics:
        """Named metrics: the AUROC of each label, then the means over the labels in each bool mask [L].

        A mean leaves out labels without AUROC, also in a resample that has only one class of a label.
        """
        values, resamples, jackknife = (
            np.concatenate([found, *(_mean(found, mask)[..., None] for mask in means.values())], axis=-1)
            for found in (self.per_label, self.resamples, self.jackknife)
        )
        return Metrics((*labels, *means), values, resamples, self.sample, jackknife=jackknife)


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
    counts, rows = draw_patients(patients, bootstrap, seed)
    each = [_auroc_of_label(scores[:, i], labels[:, i], rows, counts) for i in range(scores.shape[1])]
    per_label, resamples, jackknife = (np.stack(found, axis=-1) for found in zip(*each, strict=True))
    sample = sample_fingerprint((labels.shape, bootstrap, seed), labels, patients)
    return Auroc(per_label, resamples, jackknife, sample)


def weighted_kappa(
    predicted: ArrayLike, true: ArrayLike, patients: NDArray[Any], bootstrap: int = 1000, seed: int = 0
) -> Bootstrapped:
    """Cohen's kappa of predicted and true grades with quadratic weights.

    1 - Σ_n (p_n - t_n)² / (Σ_n Σ_m (p_n - t_m)² / N). The denominator is the expected squared disagreement if the
    predicted grades were in random order.

    Args:
        predicted: predicted grades [N]; NaN: no prediction.
        true: true grades [N]; NaN: unknown, the image is ignored.
        patients: ids [N].
        bootstrap, seed: number of resamples R and seed, as for `auroc`, which draws the same resamples.

    Returns:
        Kappa (F = 1); NaN if all grades are equal, or if the grade of an image with a known grade was not predicted.
    """
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    known = ~np.isnan(true)
    p, t = predicted[known], true[known]

    def statistic(weights: Floats) -> Floats:
        w = weights[known]
        n, sum_p, sum_t = w.sum(axis=0), p @ w, t @ w
        by_chance = n * ((p**2 + t**2) @ w) - 2 * sum_p * sum_t
        disagreement = n * ((p - t) ** 2 @ w)
        return 1 - _ratio(disagreement, by_chance)[:, None]

    return bootstrap_patients(statistic, patients, bootstrap, seed)


def _auroc_of_label(
    scores: Floats, labels: Floats, rows: NDArray[np.intp], counts: Floats
) -> tuple[Floats, Floats, Floats]:
    """AUROC of one label: on the sample, [], on each resample, [R], and without each patient, [P].

    The Mann-Whitney statistic: correctly ordered pairs of a positive and a negative image (ties: one half) / all pairs.

    Args:
        scores, labels: [N]; labels are 0, 1 or NaN.
        rows: index of each image's patient, [N].
        counts: number of times that each patient is drawn in each resample, [P, R].
    """
    num_patients, bootstrap = counts.shape
    missing = np.full(bootstrap, np.nan), np.full(num_patients, np.nan)
    pos, neg = (np.flatnonzero(labels == value) for value in (1, 0))
    if np.isnan(scores).any() or not len(pos) or not len(neg):
        return np.array(np.nan), *missing
    num_pos, num_neg = (np.bincount(rows[images], minlength=num_patients).astype(float) for images in (pos, neg))
    won_by_pos = _ranks(scores[pos], scores[neg])  # [n], pairs of each positive image
    won, pairs = won_by_pos.sum(), len(pos) * len(neg)
    if not bootstrap:
        return won / pairs, *missing
    won_by_neg = len(pos) - _ranks(scores[neg], scores[pos])
    # Pairs within a patient are in both sums. Ranks among the images of the same patient: ranks of (patient, score).
    key = rows * len(rows) + np.unique(scores, return_inverse=True)[1]
    won_within = _ranks(key[pos], key[neg]) - (num_neg.cumsum() - num_neg)[rows[pos]]
    won_with = np.bincount(rows[pos], won_by_pos - won_within, num_patients) + np.bincount(
        rows[neg], won_by_neg, num_patients
    )
    return (
        won / pairs,
        _ratio(_won_in_resamples(scores, rows, pos, neg, counts), (num_pos @ counts) * (num_neg @ counts)),
        _ratio(won - won_with, (len(pos) - num_pos) * (len(neg) - num_neg)),
    )


def _ranks(scores: NDArray[Any], others: NDArray[Any]) -> Floats:
    """Number of other scores below each score; ties count one half."""
    ordered = np.sort(others)
    ranks: Floats = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2
    return ranks


def _won_in_resamples(
    scores: Floats, rows: NDArray[np.intp], pos: NDArray[np.intp], neg: NDArray[np.intp], counts: Floats
) -> Floats:
    """Weight of the correctly ordered pairs in each resample, [R]; ties count one half.

    The ranks are the same in all resamples, so a sparse matrix [n, P] sums the negative images between two positive
    images by patient. Its product with `counts` has the weights of all resamples.
    """
    from scipy.sparse import csr_array

    pos = pos[np.argsort(scores[pos])]
    # A negative image counts half from the first positive image that has its score, and fully from the first above.
    first = np.concatenate([np.searchsorted(scores[pos], scores[neg], side) for side in ("left", "right")])
    shape = (len(pos) + 1, len(counts))
    between = csr_array((np.full(len(first), 0.5), (first, np.tile(rows[neg], 2))), shape=shape)[:-1]

    def won(drawn: Floats) -> Floats:
        below = (between @ drawn).cumsum(axis=0)  # weight of the negative images below each positive image
        return np.einsum("nr,nr->r", drawn[rows[pos]], below)

    size = max(1, CHUNK // len(pos))
    return np.concatenate([won(counts[:, i : i + size]) for i in range(0, counts.shape[1], size)])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The ratio; NaN if the denominator is not above 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator > 0)


def _mean(values: Floats, mask: Mask) -> Floats:
    """Mean over the last axis of the values in the mask that are not NaN; NaN if all are NaN."""
    known = ~np.isnan(values) & mask
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return _ratio(total, count)


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
