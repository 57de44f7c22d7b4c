"""AUROC pair by pair, and a patient-level resample as an explicit list of rows."""

import math

import numpy as np


def auroc(scores, labels, weights=None):
    """Weighted share of correctly ordered (positive, negative) pairs; ties count half. NaN if there is no pair."""
    weights = [1.0] * len(scores) if weights is None else weights
    won = total = 0.0
    for score_p, label_p, weight_p in zip(scores, labels, weights, strict=True):
        for score_n, label_n, weight_n in zip(scores, labels, weights, strict=True):
            if label_p == 1 and label_n == 0:
                credit = 1.0 if score_p > score_n else 0.5 if score_p == score_n else 0.0
                total += weight_p * weight_n
                won += weight_p * weight_n * credit
    return won / total if total else math.nan


def repeated_rows(patients, drawn):
    """The row numbers of a resample: each drawn patient's rows, once for each time the patient was drawn."""
    rows = [row for patient in drawn for row, owner in enumerate(patients) if owner == patient]
    return np.array(rows, dtype=int)
