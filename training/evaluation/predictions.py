"""A run's answers on a task's test images, kept, and the metrics that they come to."""

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
        task: its name.
        labels: names of the L labels.
        scores: float [M, L], higher is more likely; finite, or NaN for a whole label that could not be learnt.
        targets: float [M, L], 0 or 1; NaN: unknown.
        patients: [M] of str, as the store names them.
        threshold: the score above which the answer is yes: 0 for log odds, 0.5 for a share.
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
        """What `save` wrote. Raises C2LError where it is missing or damaged."""
        header, arrays = load_npz(folder / FILE, ("task", "labels", "yes"), ARRAYS)
        return cls(header["task"], tuple(header["labels"]), threshold=header["yes"], **arrays)


def measure(predictions: Predictions, task: Task, bootstrap: int = 1000, seed: int = 0) -> Metrics:
    """AUROC of each label, then what stands for the task: means over labels, or the weighted kappa of the grades.

    A label with one class only has no AUROC: its figure is NaN, and no mean counts it. Nor are there grades where a
    step of theirs could not be learnt.

    Args:
        predictions: on the task's test images.
        task: says which labels a second mean leaves out, and whether the labels are the steps of a grade.
        bootstrap: number of resamples of whole patients.
        seed: of the resampling.

    Raises:
        C2LError: scores that are not finite, shapes that do not match.
    """
    sample = (predictions.patients, bootstrap, seed)
    each = auroc(predictions.scores, predictions.targets, *sample)
    metrics = each.metrics(predictions.labels, {} if task.is_graded else task.means(predictions.labels))
    skipped_labels = np.isnan(predictions.scores).all(axis=0)
    metrics = replace(metrics, skipped_labels=", ".join(np.array(predictions.labels)[skipped_labels]))
    if not task.is_graded:
        return metrics
    # The grade is the number of steps passed: each question is whether it is at least so high (Frank & Hall,
    # "A Simple Approach to Ordinal Classification", ECML 2001). With a step that could not be learnt there is no grade.
    answers = np.where(np.isnan(predictions.scores), np.nan, predictions.scores > predictions.threshold)
    value, resamples = weighted_kappa(answers.sum(axis=1), predictions.targets.sum(axis=1), *sample)
    return replace(
        metrics,
        names=(*metrics.names, KAPPA),
        values=np.append(metrics.values, value),
        resamples=np.column_stack([metrics.resamples, resamples]),
    )
