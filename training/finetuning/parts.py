"""Which rows are fitted, which choose the epoch, and which are tested on: each patient in one part only."""

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
class Parts:
    """Row numbers of a store, ascending, for fitting, for choosing the epoch, and for the metrics at the end."""

    fit: Rows
    tune: Rows
    test: Rows


def split_task(task: Task, store: ImageStore, settings: Settings) -> Parts:
    """A task's rows in three parts. Training rows without any known label are left out.

    Raises:
        DatasetError: the store has no images of the task, or too few patients to fit and to choose on.
        RunError: a patient is in the training list and in the test list.
    """
    train, test = task.train_rows(store), task.test_rows(store)
    check_no_shared_patients(store, train, test)
    train = train[np.isfinite(task.labels(store)[train]).any(axis=1)]
    used = train[split_patients(store.patients[train], settings.fraction, "finetuning_labels", settings.seed)]
    held_out = split_patients(store.patients[used], settings.hold_out, "finetuning_held_out", settings.seed)
    parts = Parts(used[~held_out], used[held_out], test)
    _check_enough(task.labels(store), parts, f"{settings.fraction:g} of the training patients of {task.name}")
    return parts


def both_answers(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask, bool [L], of the labels [N, L] that are 1 for some image and 0 for another."""
    found: NDArray[np.bool_] = np.any(labels == 1, axis=0) & np.any(labels == 0, axis=0)
    return found


def _check_enough(labels: NDArray[np.float32], parts: Parts, of: str) -> None:
    for part, rows in (("fit", parts.fit), ("choose the epoch on", parts.tune)):
        if not both_answers(labels[rows]).any():
            raise DatasetError(
                f"{len(rows)} images to {part}, from {of}, and no label has both answers among them; wanted more "
                "patients: a higher --fraction, or another --hold-out"
            )
