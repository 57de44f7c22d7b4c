"""Predictions of a run on a task's test images, and their metrics."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import load_npz, save_npz
from .classification_metrics import auroc, weighted_kappa
from .metrics import Metrics
from .tasks import Task

FILE = "predictions.npz"
ARRAYS = ("scores", "targets", "patients")
KAPPA = "quadratic weighted kappa"


@dataclass(frozen=True)
class Predictions:
    """Scores of M images for L labels.

    Attributes:
        task: name of the task.
        labels: names of the L labels.
        scores: float [M, L]; higher means more likely positive. Finite, or NaN in the whole column of a label that
            could not be learned.
        targets: float [M, L]; 0, 1 or NaN (unknown).
        patients: [M] str, ids as in the store.
        threshold: scores above it mean "positive": 0 for log odds, 0.5 for shares of neighbours.
    """

    task: str
    labels: tuple[str, ...]
    scores: NDArray[np.floating]
    targets: NDArray[np.floating]
    patients: NDArray[np.str_]
    threshold: float = 0.0

    def save(self, folder: Path) -> Path:
        """Write `predictions.npz` into a folder."""
        header = {"task": self.task, "labels": self.labels, "yes": self.threshold}
        save_npz(folder / FILE, header, {key: getattr(self, key) for key in ARRAYS})
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        """Read `predictions.npz` from a folder. Raises C2LError if it is missing or damaged."""
        header, arrays = load_npz(folder / FILE, ("task", "labels", "yes"), ARRAYS)
        return cls(header["task"], tuple(header["labels"]), threshold=header["yes"], **arrays)


def measure(predictions: Predictions, task: Task, bootstrap: int = 1000, seed: int = 0) -> Metrics:
    """Compute the AUROC of each label, and the task's summary: means over labels, or weighted kappa of the grades.

    A label with only one class has no AUROC: its metric is NaN and counts in no mean. Kappa is NaN if a step of the
    grade could not be learned.

    Args:
        predictions: predictions on the task's test images.
        task: task of the predictions. It defines the means over labels, or the grade that the labels are steps of.
        bootstrap: number of resamples of whole patients.
        seed: seed of the resampling.

    Raises:
        C2LError: scores that are not finite, or shapes that do not match.
    """
    sample = (predictions.patients, bootstrap, seed)
    each = auroc(predictions.scores, predictions.targets, *sample)
    metrics = each.metrics(predictions.labels, {} if task.is_graded else task.means(predictions.labels))
    skipped = np.isnan(predictions.scores).all(axis=0)
    metrics = replace(metrics, skipped_labels=", ".join(np.array(predictions.labels)[skipped]))
    if not task.is_graded:
        return metrics
    # Each label is "grade at least k", so the grade is the number of positive labels (Frank & Hall, "A Simple Approach
    # to Ordinal Classification", ECML 2001). The grade is NaN if one of the labels could not be learned.
    passed = np.where(np.isnan(predictions.scores), np.nan, predictions.scores > predictions.threshold)
    value, resamples = weighted_kappa(passed.sum(axis=1), predictions.targets.sum(axis=1), *sample)
    return replace(
        metrics,
        names=(*metrics.names, KAPPA),
        values=np.append(metrics.values, value),
        resamples=np.column_stack([metrics.resamples, resamples]),
    )
