"""Which of a store's films are looked at, what is known of them, and their features."""

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

MOST_TRAINING, MOST_TEST = 20_000, 2_000
"""Films of a data set that are looked at; of more, a seeded draw."""


@dataclass(frozen=True)
class DataSet:
    """The films of one data set that are looked at.

    Attributes:
        task: says which of its films are training films, and what is asked of them.
        store: holds them.
        train, test: row numbers, ascending.
    """

    task: Task
    store: ImageStore
    train: Rows
    test: Rows

    @property
    def name(self) -> str:
        return self.task.dataset

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What is known of a film: the findings, or the one grade."""
        return (self.task.grade,) if self.task.is_graded else self.task.label_names(self.store)

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """Of every row of the store, [N, len(names)]: 0 or 1, or the grade; NaN: unknown, or not this data set's."""
        return self.store.labels(self.names) if self.task.is_graded else self.task.labels(self.store)

    def groups(self, rows: Rows) -> dict[str, Mask]:
        """Which of these rows show what, bool [len(rows)]: each grade, or no finding and each finding; none empty.

        A film may show several findings; where no label is 1 and one is unknown, it is in no group.
        """
        known = self.labels[rows]
        if self.task.is_graded:
            values = known[:, 0]
            groups = {f"{self.task.grade} {value:g}": values == value for value in np.unique(values[~np.isnan(values)])}
        else:
            groups = {"no finding": (known == 0).all(axis=1)}
            groups |= {name: known[:, i] == 1 for i, name in enumerate(self.names)}
        return {name: mask for name, mask in groups.items() if mask.any()}

    def caption(self, row: int) -> str:
        """The data set and what the film shows; neither a patient nor a file."""
        shown = [name for name, mask in self.groups(np.array([row])).items() if mask[0]]
        return f"{self.name}: {', '.join(shown) or 'not known'}"


def data_sets(store: ImageStore, seed: int) -> list[DataSet]:
    """The store's data sets that a task asks about, in the tasks' order.

    Raises DatasetError where there is none: no labels, or no test films.
    """
    found = []
    for task in load_tasks(store):
        parts = (store.select(dataset=task.dataset, split=splits) for splits in (task.train, task.test))
        train, test = (_draw(rows, most, seed) for rows, most in zip(parts, (MOST_TRAINING, MOST_TEST), strict=True))
        if len(train) and len(test):
            found.append(DataSet(task, store, train, test))
    if not found:
        raise DatasetError(
            f"{store.path} holds no data set with labels, training films and test films; wanted one that a task of "
            "tasks.toml asks about, such as chestxray14, or a folder whose labels.csv has labels and splits"
        )
    return found


def _draw(rows: Rows, most: int, seed: int) -> Rows:
    """All of the rows, or so many of them, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


@dataclass(frozen=True)
class Features:
    """A network's output, float32 [n, D], on the clean views of n rows of a store, which ascend."""

    rows: Rows
    values: NDArray[np.float32]

    def of(self, rows: Rows) -> NDArray[np.float32]:
        """The features of some of the rows, in their order."""
        return self.values[np.searchsorted(self.rows, rows)]


def extract(start: Initialization, store: ImageStore, rows: Rows, device: str | torch.device) -> Features:
    """The features of these rows. Raises C2LError where one is not finite."""
    ascending = np.sort(rows)
    values = extract_features(start.network, store, ascending, start.size, start.mean, start.std, device)
    check_finite(values)
    return Features(ascending, values)
