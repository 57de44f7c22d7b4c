"""The expanded percentile interval, patient by patient and seed by seed."""

import math

import numpy as np
from scipy.stats import norm, t

from c2l_models.training.seeding import seed_of


def expanded(resamples, jackknife, seed_groups=()):
    """Quantiles of the resamples, as far out as Student's t with the jackknife's standard error would be.

    The jackknife's degrees of freedom: Johnson & Rust 1992, (3.16 - 2.77 / √P) (Σ d²)² / Σ d⁴, from 1 to P - 1.
    Several variances: Welch–Satterthwaite.
    """
    values = [value for value in jackknife if not math.isnan(value)]
    count, middle = len(values), sum(values) / len(values)
    squares = [(value - middle) ** 2 for value in values]
    variances = [(count - 1) / count * sum(squares)]
    freedom = (3.16 - 2.77 / math.sqrt(count)) * sum(squares) ** 2 / sum(square**2 for square in squares)
    freedoms = [min(max(freedom, 1), count - 1)]
    for group in seed_groups:
        middle = sum(group) / len(group)
        variances.append(sum((value - middle) ** 2 for value in group) / (len(group) - 1) / len(group))
        freedoms.append(len(group) - 1)
    total = sum(variances)
    together = total**2 / sum(variance**2 / df for variance, df in zip(variances, freedoms, strict=True))
    known = [value for value in resamples if not math.isnan(value)]
    half_widths = t.ppf(0.975, together) * math.sqrt(total) / np.std(known)
    tail = min(0.025, norm.sf(half_widths))
    return np.quantile(known, [tail, 1 - tail])


def without_each(patients):
    """For each patient in sorted order, the row numbers of all other patients."""
    return [np.array([row for row, owner in enumerate(patients) if owner != one]) for one in sorted(set(patients))]


def drawn_seeds(count, resamples, stream=0):
    """The positions of the seeds that each resample draws, as lists."""
    generator = np.random.default_rng(seed_of(count, stream))
    for counts in generator.multinomial(count, [1 / count] * count, size=resamples):
        yield [position for position, times in enumerate(counts) for _ in range(times)]
