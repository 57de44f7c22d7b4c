"""Evaluation tasks: training rows, test rows and labels of one data set in a store."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError, RunError
from c2l_models.progress import report

from ..datasets.constants import constants, label_names
from ..patient_splits import patient_folds
from ..store.image_store import ImageStore
from .classification_metrics import Mask

TASKS = Path(__file__).with_name("tasks.toml")
UNCERTAIN = -1
"""Label value of a finding that the radiology report leaves open (CheXpert, MIMIC-CXR)."""
NO_PATIENT_IDS = (
    "This data set has no patient ids: each image counts as its own patient. Images of one patient may be in different "
    "folds or parts, so the metrics may be too high and the intervals too narrow."
)

Uncertain = Literal["zeros", "ones", "ignore"]


@dataclass(frozen=True)
class Task:
    """Binary labels of one data set's images; `tasks.toml` explains the fields."""

    name: str
    dataset: str
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    grade: str = ""
    steps: tuple[float, ...] = ()
    headline: str = "mean"
    without: tuple[str, ...] = ()
    uncertain: Uncertain = "ignore"
    unmentioned: Literal["zeros", "ignore"] = "ignore"
    folds: int = 0
    patient_ids: bool = True

    @property
    def is_graded(self) -> bool:
        """Whether the labels are the steps of a grade, such as "kl_grade ≥ 2"."""
        return bool(self.grade)

    @property
    def note(self) -> str:
        """A sentence that every report of the task has to show; empty for most tasks."""
        return "" if self.patient_ids else NO_PATIENT_IDS

    def means(self, labels: Sequence[str]) -> dict[str, Mask]:
        """Masks of the means that summarize the task: name of the mean -> labels that it includes, bool [L]."""
        means = {"mean": np.ones(len(labels), bool)}
        if self.without and not set(labels) <= set(self.without):
            means[f"mean without {', '.join(self.without)}"] = ~np.isin(labels, self.without)
        return means

    def label_names(self, store: ImageStore) -> tuple[str, ...]:
        """Names of the L labels, such as "Mass", or "kl_grade ≥ 2" for a step of a grade."""
        return self.names_and_labels(store)[0]

    def note_on_labels(self, store: ImageStore) -> str:
        """A sentence that names the columns of a user's table that are not 0 or 1, which no metric uses; or empty."""
        own = self.select(store)
        if self.grade or self.findings or (self.dataset in constants()["datasets"] and label_names(self.dataset)):
            return ""
        names = _labels_in(store, own)
        values = np.where((found := store.labels(names)[own]) == UNCERTAIN, np.nan, found)
        graded = [name for i, name in enumerate(names) if not np.isin(values[~np.isnan(values[:, i]), i], (0, 1)).all()]
        if not graded:
            return ""
        return (
            f"Left out, because only labels of 0 and 1 are measured: {', '.join(graded)}. For a grade, add a column of "
            f"0 and 1 for each step, such as '{graded[0]} ≥ 2'."
        )

    def labels(self, store: ImageStore) -> NDArray[np.float32]:
        """Labels of every row of the store, float32 [N, L]: 0, 1 or NaN (unknown, or not a row of the task).

        Rows of another data set, and rows that the store marks as `pretraining_only`, have no labels.

        In the training part, the setting `uncertain` decides the value of uncertain labels (-1), and `unmentioned` the
        value of missing labels. In the test part, both are NaN, because metrics use known labels only.
        """
        return self.names_and_labels(store)[1]

    def names_and_labels(self, store: ImageStore) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """`label_names` and `labels` in one call, which decodes the store's labels once."""
        names, values = self._names_and_values(store)
        return tuple(names), values

    def train_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """Rows of the training part, int64 [n]. Raises DatasetError if the store has none."""
        return self._rows(store, self.train)

    def test_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """Rows of the test part, int64 [n]. Raises DatasetError if the store or the task has none."""
        if self.folds:
            raise DatasetError(
                f"expected a task with a test part, found {self.name}, which has {self.folds} folds of patients "
                "instead; measure it with `c2l probe`, or choose a task with a test part"
            )
        return self._rows(store, self.test)

    def evaluated_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """Rows that the metrics are computed on, int64 [n]: the test part, or the training part if it has folds."""
        return self.train_rows(store) if self.folds else self.test_rows(store)

    def folds_of(self, patients: NDArray[np.str_]) -> NDArray[np.int64]:
        """The fold of each image, int64 [N], for a task with folds. `patients`: the patient id of each image, [N]."""
        return patient_folds(patients, self.folds, "out_of_fold")

    def _names_and_values(self, store: ImageStore) -> tuple[list[str], NDArray[np.float32]]:
        """Names and values [N, L] of the labels, without labels that are never known or not binary."""
        own = self.select(store)
        known = label_names(self.dataset) if self.dataset in constants()["datasets"] else ()
        names = list(self.findings or known) or _labels_in(store, own)
        if self.grade:
            names = [self.grade]
        values = np.full((len(store), len(names)), np.nan, np.float32)
        values[own] = store.labels(names)[own]
        if self.grade:
            passed = np.where(np.isnan(values), np.nan, values >= np.array(self.steps)).astype(np.float32)
            return [f"{self.grade} ≥ {step:g}" for step in self.steps], passed
        train = np.zeros((len(store), 1), bool)
        train[self.select(store, self.train)] = True
        uncertain, unmentioned = values == UNCERTAIN, np.isnan(values)
        values[uncertain] = np.nan
        if self.uncertain != "ignore":
            values[uncertain & train] = self.uncertain == "ones"
        if self.unmentioned == "zeros":
            values[unmentioned & train] = 0
        binary = _is_binary(values)
        return [name for name, kept in zip(names, binary, strict=True) if kept], values[:, binary]

    def _rows(self, store: ImageStore, splits: tuple[str, ...]) -> NDArray[np.int64]:
        rows = self.select(store, splits)
        if not len(rows):
            own = store.index["split"].take(self.select(store)).to_pylist()
            found = ", ".join(f"{count:,} in {split}" for split, count in sorted(Counter(own).items()))
            todo = "write splits in the column split of its table, and prepare it again" if found else "prepare it"
            raise DatasetError(
                f"task {self.name} expects images of {self.dataset} in split {' or '.join(splits)}, found "
                f"{found or 'none'} in the store; {todo} with `c2l prepare --source {self.dataset}=DIR …`"
            )
        return rows

    def select(self, store: ImageStore, splits: tuple[str, ...] | None = None) -> NDArray[np.int64]:
        """Rows of the data set in these splits (None: all) with labels that a task may use.

        Some images are for pretraining alone: if their quality differs from that of the other images of the data set,
        a classifier could recognize their source, and from it their label.
        """
        rows = store.select(dataset=self.dataset, split=splits)
        return rows[~store.pretraining_only[rows]]


def check_no_shared_patients(store: ImageStore, train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
    """Raise RunError if a patient has images among the training rows and among the test rows."""
    if shared := sorted(set(store.patients[train]) & set(store.patients[test])):
        raise RunError(
            f"found {len(shared)} patients in both the training and the test part ({shared[0]}, …), expected none; "
            "correct the splits of the source data and prepare the store again, or remove the test images from the "
            "recipe's sources"
        )


def load_task(name: str, store: ImageStore | None = None) -> Task:
    """The task of this name: a table of `tasks.toml`, or the name of a data set in the store that has no table.

    A data set without a table has the task `folder` with its own images. Raises DatasetError for an unknown name.
    """
    tables, others = _tables(), _described_data_sets(store) if store else []
    if name in others:
        return replace(load_task("folder"), name=name, dataset=name)
    if name not in tables:
        raise DatasetError(f"no task is called {name!r}; expected one of: {', '.join([*tables, *others])}")
    table: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in tables[name].items()
    }
    return Task(name=name, **table)


def load_tasks(store: ImageStore, one_per_dataset: bool = True) -> list[Task]:
    """Tasks for which the store has images with at least one label.

    `one_per_dataset`: only the first task in the file of each data set.
    """
    tasks: dict[str, Task] = {}
    for task in (load_task(name, store) for name in [*_tables(), *_described_data_sets(store)]):
        if len(store.select(dataset=task.dataset)) and task.label_names(store):
            tasks.setdefault(task.dataset if one_per_dataset else task.name, task)
    return list(tasks.values())


def measurable_tasks(tasks: Sequence[Task], store: ImageStore) -> list[Task]:
    """The tasks that have a training part, and a test part or folds, in the store. The others are reported."""
    measurable = []
    for task in tasks:
        try:
            task.train_rows(store)
            task.evaluated_rows(store)
        except DatasetError as error:
            report(f"{task.name} is left out: {error}")
        else:
            measurable.append(task)
    return measurable


def _described_data_sets(store: ImageStore) -> list[str]:
    """Data sets of the store that neither `datasets.toml` nor `tasks.toml` names: those with a `dataset.toml`."""
    known = {*constants()["datasets"], *(table["dataset"] for table in _tables().values())}
    return sorted(set(store.index["dataset"].unique().to_pylist()) - known)


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TASKS.read_text(encoding="utf-8"))


def _is_binary(values: NDArray[np.float32]) -> Mask:
    """Whether all known values of each label are 0 or 1, and some are known: bool [L]. NaN is unknown."""
    unknown = np.isnan(values)
    binary: Mask = np.all(unknown | np.isin(values, (0, 1)), axis=0) & ~np.all(unknown, axis=0)
    return binary


def _labels_in(store: ImageStore, rows: NDArray[np.int64]) -> list[str]:
    """All label names in these rows, sorted."""
    labels = store.index["labels"].take(rows).to_pylist()
    return sorted({name for row in labels for name, _ in row})
