"""Samples of a store's images for inspection: their labels, captions and features."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..evaluation.classification_metrics import Mask
from ..evaluation.tasks import Task, load_tasks
from ..features import check_finite, extract_features
from ..initialization import Initialization
from ..store.image_store import ImageStore

Rows = NDArray[np.int64]

MAX_TRAINING, MAX_TEST = 20_000, 2_000
"""Maximum number of training and test images per data set. If there are more, a seeded sample is drawn."""


@dataclass(frozen=True)
class DataSetSample:
    """Inspected images of one data set.

    Attributes:
        task: task that defines training part, test part and labels.
        store: image store.
        train, test: rows of the store, ascending.
    """

    task: Task
    store: ImageStore
    train: Rows
    test: Rows

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.task.dataset

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the labels: the findings, or the one grade."""
        return (self.task.grade,) if self.task.is_graded else self.task.label_names(self.store)

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """Labels of all rows of the store, [N, len(names)]: 0, 1 or the grade; NaN: unknown or another data set."""
        return self.store.labels(self.names) if self.task.is_graded else self.task.labels(self.store)

    def groups(self, rows: Rows) -> dict[str, Mask]:
        """Non-empty groups of these rows, by grade, or by finding and "no finding": name -> bool mask [len(rows)].

        An image with several findings is in several groups. An image without a known finding is in "no finding" only
        if all its labels are known.
        """
        labels = self.labels[rows]
        if self.task.is_graded:
            grades = labels[:, 0]
            groups = {f"{self.task.grade} {grade:g}": grades == grade for grade in np.unique(grades[~np.isnan(grades)])}
        else:
            groups = {"no finding": (labels == 0).all(axis=1)}
            groups |= {name: labels[:, i] == 1 for i, name in enumerate(self.names)}
        return {name: mask for name, mask in groups.items() if mask.any()}

    def caption(self, row: int) -> str:
        """Name of the data set, and findings or grade of an image. The caption names no patient and no file."""
        shown = [name for name, mask in self.groups(np.array([row])).items() if mask[0]]
        return f"{self.name}: {', '.join(shown) or 'not known'}"


def sample_data_sets(store: ImageStore, seed: int) -> list[DataSetSample]:
    """Sample every data set of the store that a task covers, in the order of the tasks.

    Raises DatasetError if no data set has labels, training images and test images.
    """
    samples = []
    for task in load_tasks(store):
        parts = (task.select(store, splits) for splits in (task.train, task.test))
        train, test = (_draw(rows, most, seed) for rows, most in zip(parts, (MAX_TRAINING, MAX_TEST), strict=True))
        if len(train) and len(test):
            samples.append(DataSetSample(task, store, train, test))
    if not samples:
        raise DatasetError(
            f"{store.path} has no data set with labels, training images and test images; expected a data set of "
            "tasks.toml, such as chestxray14, or a folder with a labels.csv that has labels and splits"
        )
    return samples


def _draw(rows: Rows, most: int, seed: int) -> Rows:
    """At most `most` of the rows, drawn at random, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


@dataclass(frozen=True)
class Features:
    """Features of clean views, float32 [n, D], of n rows of a store in ascending order."""

    rows: Rows
    values: NDArray[np.float32]

    def at(self, rows: Rows) -> NDArray[np.float32]:
        """Features of these rows, in their order."""
        return self.values[np.searchsorted(self.rows, rows)]


def extract(init: Initialization, store: ImageStore, rows: Rows, device: str | torch.device) -> Features:
    """Extract the features of these rows. Raises C2LError if one is not finite."""
    ascending = np.sort(rows)
    values = extract_features(init.network, store, ascending, init.size, init.mean, init.std, device)
    check_finite(values)
    return Features(ascending, values)
