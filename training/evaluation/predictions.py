"""Predictions of a run on a task's test images, and their metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import load_npz, save_npz
from .classification_metrics import Mask, auroc, weighted_kappa
from .metrics import Metrics
from .tasks import Task

FILE = "predictions.npz"
ARRAYS = ("scores", "targets", "patients")
KAPPA = "quadratic weighted kappa"
MIN_CASES = 10
"""Smallest number of positive and of negative images with which a label's AUROC may decide a setting."""

FEW_CASES = 20
"""Below this number of positive or of negative test images, a report says that a label's AUROC means little."""

FEW_SHOWN = 5
"""Number of labels with few test images that a report names."""


def count_cases(labels: Sequence[str], targets: NDArray[np.float32]) -> dict[str, list[int]]:
    """Number of positive and of negative images of each label; targets [M, L]: 0, 1 or NaN."""
    positives, negatives = ((targets == value).sum(axis=0).tolist() for value in (1, 0))
    return {name: counts for name, *counts in zip(labels, positives, negatives, strict=True)}


def few_cases_note(cases: Mapping[str, Sequence[int]], spelled: Callable[[str], str] = str) -> str:
    """A sentence that names the labels with too few test images for a meaningful AUROC; "" if none has.

    Args:
        cases: positive and negative test images of each label.
        spelled: how a name is written.
    """
    few = [
        f"{spelled(name)} ({positives} positive, {negatives} negative)"
        for name, (positives, negatives) in cases.items()
        if min(positives, negatives) < FEW_CASES
    ]
    if not few:
        return ""
    listed = ", ".join(few[:FEW_SHOWN]) + (f" and {len(few) - FEW_SHOWN} more" if len(few) > FEW_SHOWN else "")
    return (
        f"Too few test images for a measure: {listed}; with fewer than {FEW_CASES} positive or negative images, an "
        "AUROC is mostly chance."
    )


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
    kappa = weighted_kappa(passed.sum(axis=1), predictions.targets.sum(axis=1), *sample)
    return replace(
        metrics,
        names=(*metrics.names, KAPPA),
        values=np.append(metrics.values, kappa.values),
        resamples=np.column_stack([metrics.resamples, kappa.resamples]),
        jackknife=np.column_stack([each.jackknife, kappa.jackknife]),
    )


def tuning_metric(
    task: Task,
    names: Sequence[str],
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    folds: NDArray[np.integer] | None = None,
) -> float:
    """Compute the value that settings are chosen by: the task's headline in AUROC, over labels with enough images.

    The headline is one label or a mean over labels. For another headline, such as kappa, it is the mean over all
    labels. Labels that `tuning_labels` leaves out do not count, because the AUROC of a label with one or two positives
    is noise that would decide alone.

    Args:
        task: task that the settings are chosen for.
        names: names of the L labels.
        scores: float [N, L], for images that did not take part in the fit. Each fold's column is finite, or NaN in a
            whole column of a label that could not be learned.
        labels: [N, L]; 0, 1 or NaN (unknown).
        folds: number of each image's fold, [N], if every fold was scored by a model of its own. A label's AUROC is then
            its mean over the folds, because scores of different models need not be comparable.

    Returns:
        The AUROC; NaN if it cannot be computed for any label that counts.
    """
    counted = tuning_labels(task, names, labels)
    parts = [np.ones(len(labels), bool)] if folds is None else [folds == fold for fold in np.unique(folds)]
    by_fold = [auroc(scores[part][:, counted], labels[part][:, counted], bootstrap=0).per_label for part in parts]
    known = [column[~np.isnan(column)] for column in np.transpose(by_fold)]
    means = [column.mean() for column in known if len(column)]
    return float(np.mean(means)) if means else float("nan")


def tuning_labels(task: Task, names: Sequence[str], labels: NDArray[np.floating]) -> Mask:
    """Choose the labels that count in `tuning_metric`: labels [N, L] -> bool [L].

    They are the headline's labels with at least `MIN_CASES` positive and negative images. If no label has as many, the
    labels with the most count.
    """
    counted = task.means(names).get(task.headline, np.array([name == task.headline for name in names]))
    if not counted.any():
        counted = np.ones(len(names), bool)
    cases = np.minimum((labels == 1).sum(axis=0), (labels == 0).sum(axis=0))
    enough: Mask = counted & (cases >= min(MIN_CASES, cases[counted].max()))
    return enough


def can_tune(task: Task, names: Sequence[str], labels: NDArray[np.floating]) -> bool:
    """Whether images with these labels [N, L] suffice to choose a setting.

    They do if one of the headline's labels has at least `MIN_CASES` positive and negative images.
    """
    counted = labels[:, tuning_labels(task, names, labels)]
    return bool((np.minimum((counted == 1).sum(axis=0), (counted == 0).sum(axis=0)) >= MIN_CASES).any())
