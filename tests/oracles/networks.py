"""Momentum update and batch-norm statistics with plain Python numbers."""

import math


def momentum_update(teacher, student, theta):
    """Equation 2 on two flat lists of numbers."""
    return [theta * t + (1 - theta) * s for t, s in zip(teacher, student, strict=True)]


def mean_and_variance(values):
    """The mean and two variances: over n (for normalisation) and over n - 1 (for the running statistics)."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, squares / len(values), squares / (len(values) - 1)
