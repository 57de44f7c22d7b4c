"""Split a task's images by patient: to fit, to choose the epoch, and to test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..evaluation.predictions import MIN_CASES, can_tune
from ..evaluation.tasks import Task, check_no_shared_patients
from ..patient_splits import split_patients
from ..store.image_store import ImageStore
from .settings import Settings

Rows = NDArray[np.int64]

MIN_TUNING_IMAGES = 100
"""Smallest number of held-out images that may choose the epoch. With fewer, the differences between epochs are noise.
Of 1 % of the open corpus's 8,508 training images of ChestX-ray14, a fifth is 17 images."""


@dataclass(frozen=True)
class TaskSplit:
    """Row numbers of a store, int64, ascending. Each patient is in one part only.

    Attributes:
        fit: the rows to train on.
        tune: the rows on which the epoch is chosen; empty if the last epoch is taken.
        test: the rows on which the metrics are computed.
        epoch_rule: which epoch is tested, and why: a phrase for reports.
    """

    fit: Rows
    tune: Rows
    test: Rows
    epoch_rule: str = "best on the tuning patients"


def split_task(task: Task, store: ImageStore, settings: Settings) -> TaskSplit:
    """Split a task's rows into three parts. Training rows without a known label are left out.

    The epoch is chosen on the held-out patients if they have at least `MIN_TUNING_IMAGES` images, and `MIN_CASES`
    positive and negative images of one of the headline's labels. Otherwise nothing is held out.

    Raises:
        DatasetError: the store has no images of the task, or too few patients to fit.
        RunError: a patient is in both the training part and the test part.
    """
    train, test, (names, labels) = task.train_rows(store), task.test_rows(store), task.names_and_labels(store)
    check_no_shared_patients(store, train, test)
    train = train[np.isfinite(labels[train]).any(axis=1)]
    used = train[split_patients(store.patients[train], settings.fraction, "finetuning_labels", settings.seed)]
    held_out = split_patients(store.patients[used], settings.hold_out, "finetuning_held_out", settings.seed)
    if reason := _reason_against_tuning(labels[used[held_out]], names, task, settings):
        split = TaskSplit(used, used[:0], test, f"last: {reason}")
    else:
        split = TaskSplit(used[~held_out], used[held_out], test)
    if not has_both_classes(labels[split.fit]).any():
        raise DatasetError(
            f"expected a label with both classes among the images to fit, found none in {len(split.fit)} images from "
            f"{settings.fraction:g} of the training patients of {task.name}; use more patients: a higher --fraction or "
            "a lower --hold-out"
        )
    return split


def has_both_classes(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell for each of L labels whether it is 1 for some image and 0 for another: [N, L] -> bool [L]."""
    found: NDArray[np.bool_] = np.any(labels == 1, axis=0) & np.any(labels == 0, axis=0)
    return found


def _reason_against_tuning(held_out: NDArray[np.float32], names: Sequence[str], task: Task, settings: Settings) -> str:
    """Why the labels [N, L] of the held-out images cannot choose the epoch; "" if they can."""
    if not settings.hold_out:
        return "hold_out is 0"
    if len(held_out) < MIN_TUNING_IMAGES:
        return f"{len(held_out)} images would be held out, fewer than {MIN_TUNING_IMAGES}"
    if not can_tune(task, names, held_out):
        return f"no label has {MIN_CASES} positive and {MIN_CASES} negative images among the held-out ones"
    return ""
