"""Confidence intervals from a bootstrap over patients."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval."""
CHUNK = 4_000_000
"""Maximum number of image weights in memory at once. 25,596 images x 1,000 resamples would take 200 MB."""


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % percentile interval. Metrics that cannot be computed are NaN, printed as 'n/a'."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "n/a"
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference of two metrics and its interval, printed with signs."""

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "n/a"
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def estimate_from_resamples(value: float, resamples: Floats) -> Estimate:
    """A metric with the percentile interval of its resamples [R]. Resamples that are NaN are ignored."""
    known = resamples[~np.isnan(resamples)]
    if np.isnan(value) or not len(known):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def bootstrap_patients(
    statistic: Callable[[Floats], Floats], patients: NDArray[np.generic], bootstrap: int, seed: int
) -> tuple[Floats, Floats]:
    """Compute F statistics on the whole sample, [F], and on R resamples of whole patients, [R, F].

    `statistic` maps the weights of N images in K samples, float64 [N, K], to [K, F].
    """
    values = statistic(np.ones((len(patients), 1)))[0]
    if not bootstrap or not len(patients):
        return values, np.full((bootstrap, len(values)), np.nan)
    counts, rows = draw_patients(patients, bootstrap, seed)
    chunk = max(1, CHUNK // len(rows))
    parts = [statistic(counts[:, start : start + chunk][rows]) for start in range(0, bootstrap, chunk)]
    return values, np.concatenate(parts)


def draw_patients(patients: NDArray[np.generic], bootstrap: int, seed: int) -> tuple[Floats, NDArray[np.intp]]:
    """Draw P patients with replacement, R times.

    Returns:
        The number of times that each patient is drawn in each resample, [P, R], and the index of each image's
        patient, [N].
    """
    ids, rows = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=bootstrap)
    return np.ascontiguousarray(drawn.T, dtype=np.float64), rows
