"""Momentum update and batch-norm statistics with plain Python numbers."""

import math


def momentum_update(teacher, student, theta):
    """Equation 2 on two flat lists of numbers."""
    return [theta * t + (1 - theta) * s for t, s in zip(teacher, student, strict=True)]


def mean_and_variance(values):
    """Mean, and the two variances: over n (what normalises) and over n - 1 (what is remembered)."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, squares / len(values), squares / (len(values) - 1)
