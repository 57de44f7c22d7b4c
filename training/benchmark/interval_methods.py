"""Intervals that `c2l benchmark coverage` compares with those of this package: percentile, BCa and studentized."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Floats

NORMAL = NormalDist()
Interval = tuple[float, float]


def percentile(resamples: Floats) -> Interval:
    """The percentile interval."""
    low, high = np.nanquantile(resamples, [0.025, 0.975])
    return float(low), float(high)


def bca(value: float, resamples: Floats, jackknife: Floats) -> Interval:
    """The bias-corrected and accelerated interval (Efron, "Better Bootstrap Confidence Intervals", JASA 1987)."""
    known, without = resamples[~np.isnan(resamples)], jackknife[~np.isnan(jackknife)]
    bias = NORMAL.inv_cdf(float(np.mean(known < value) + np.mean(known <= value)) / 2)
    changes = without.mean() - without
    acceleration = (changes**3).sum() / (6 * (changes**2).sum() ** 1.5)
    shifted = [bias + NORMAL.inv_cdf(tail) for tail in (0.025, 0.975)]
    low, high = np.quantile(known, [NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted])
    return float(low), float(high)


def studentized(value: float, resamples: Floats, slopes: Floats, counts: Floats) -> Interval:
    """The bootstrap-t interval; the standard error of a sample is the infinitesimal jackknife's.

    Args:
        value, resamples: the metric, and the metric on each resample, [R].
        slopes: derivative of the metric by the weight of each patient, [P, 1 + R]; the first column: whole sample.
        counts: number of times that each patient was drawn, [P, R].
    """
    errors = np.sqrt((counts * slopes[:, 1:] ** 2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (resamples - value) / errors
    low, high = np.quantile(t[np.isfinite(t)], [0.975, 0.025])
    error = np.sqrt((slopes[:, 0] ** 2).sum())
    return float(value - low * error), float(value - high * error)


def auroc_slopes(scores: Floats, labels: Floats, rows: NDArray[np.intp], counts: Floats) -> Floats:
    """Derivative of the mean AUROC by the weight of each patient, on the sample and each resample, [P, 1 + R]."""
    weights = np.column_stack([np.ones(len(counts)), counts])
    patients = (rows[:, None] == np.arange(len(counts))).astype(float)  # [N, P]
    each = []
    for of_label, truth in zip(scores.T, labels.T, strict=True):
        pos, neg = truth == 1, truth == 0
        won = patients[pos].T @ ((np.sign(of_label[pos, None] - of_label[neg]) + 1) / 2 @ patients[neg])  # [P, P]
        num_pos, num_neg = patients[pos].sum(axis=0), patients[neg].sum(axis=0)
        as_pos, as_neg = won @ weights, won.T @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            all_pos, all_neg = num_pos @ weights, num_neg @ weights
            value = (weights * as_pos).sum(axis=0) / (all_pos * all_neg)
            change = np.outer(num_pos, value / all_pos) + np.outer(num_neg, value / all_neg)
            each.append((as_pos + as_neg) / (all_pos * all_neg) - change)
    known = ~np.isnan(each)
    slopes: Floats = np.where(known, each, 0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    return slopes


def kappa_slopes(predicted: Floats, true: Floats, rows: NDArray[np.intp], counts: Floats) -> Floats:
    """Derivative of the weighted kappa by the weight of each patient, on the sample and each resample, [P, 1 + R]."""
    weights = np.column_stack([np.ones(len(counts)), counts])
    images = (np.ones(len(rows)), predicted, true, predicted**2 + true**2, (predicted - true) ** 2)
    sums = np.array([np.bincount(rows, of_image, len(counts)) for of_image in images])[:, :, None]  # [5, P, 1]
    n, p, t, squares, apart = np.einsum("fpi,pk->fik", sums, weights)  # [1, 1 + R] each
    disagreement, by_chance = n * apart, n * squares - 2 * p * t
    d_disagreement = sums[0] * apart + n * sums[4]
    d_by_chance = sums[0] * squares + n * sums[3] - 2 * (sums[1] * t + p * sums[2])
    slopes: Floats = -(d_disagreement * by_chance - disagreement * d_by_chance) / by_chance**2
    return slopes
