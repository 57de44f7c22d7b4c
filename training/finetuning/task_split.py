"""Split a task's images by patient: to fit, to choose the epoch, and to test."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..evaluation.tasks import Task, check_no_shared_patients
from ..patient_splits import split_patients
from ..store.image_store import ImageStore
from .settings import Settings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TaskSplit:
    """Row numbers of a store, int64, ascending. Each patient is in one part only.

    Attributes:
        fit: the rows to train on.
        tune: the rows on which the epoch is chosen.
        test: the rows on which the metrics are computed.
    """

    fit: Rows
    tune: Rows
    test: Rows


def split_task(task: Task, store: ImageStore, settings: Settings) -> TaskSplit:
    """Split a task's rows into three parts. Training rows without a known label are left out.

    Raises:
        DatasetError: the store has no images of the task, or too few patients to fit or to choose the epoch.
        RunError: a patient is in both the training part and the test part.
    """
    train, test = task.train_rows(store), task.test_rows(store)
    check_no_shared_patients(store, train, test)
    train = train[np.isfinite(task.labels(store)[train]).any(axis=1)]
    used = train[split_patients(store.patients[train], settings.fraction, "finetuning_labels", settings.seed)]
    held_out = split_patients(store.patients[used], settings.hold_out, "finetuning_held_out", settings.seed)
    split = TaskSplit(used[~held_out], used[held_out], test)
    _check_enough(task.labels(store), split, f"{settings.fraction:g} of the training patients of {task.name}")
    return split


def has_both_classes(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell for each of L labels whether it is 1 for some image and 0 for another: [N, L] -> bool [L]."""
    found: NDArray[np.bool_] = np.any(labels == 1, axis=0) & np.any(labels == 0, axis=0)
    return found


def _check_enough(labels: NDArray[np.float32], split: TaskSplit, source: str) -> None:
    for purpose, rows in (("fit", split.fit), ("choose the epoch", split.tune)):
        if not has_both_classes(labels[rows]).any():
            raise DatasetError(
                f"expected a label with both classes among the images to {purpose}, found none in {len(rows)} images "
                f"from {source}; use more patients: a higher --fraction or another --hold-out"
            )
