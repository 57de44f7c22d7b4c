"""k-NN AUROC of the features during pretraining, because a falling loss does not show that features improve."""

import copy

import numpy as np
from torch import nn

from ..evaluation.predictions import count_cases, few_cases_note, tuning_metric
from ..evaluation.tasks import load_tasks
from ..features import extract_features, recalibrate
from ..patient_splits import split_patients
from ..recipe import Recipe
from ..store.image_store import ImageStore
from .knn import knn_scores

BANK, QUERIES = 4000, 1000
"""Maximum number of labelled images that neighbours are chosen from, and of images that are classified."""
HELD_OUT = 0.2
"""Share of the training patients whose images are classified."""


class KnnMonitor:
    """k-NN classification of held-out training patients.

    Only rows in the training part of a task are used: a run may train on test images without their labels, and their
    labels must not choose a checkpoint.

    Reports each task's headline without labels of few images (`tuning_metric`). Neither the network nor any random
    state changes.
    """

    def __init__(self, recipe: Recipe, store: ImageStore, rows: np.ndarray) -> None:
        """`rows`: training rows of the run. A task that has none of them labelled, or no patient ids, is skipped."""
        self.recipe, self.store, self.rows = recipe, store, rows
        self.tasks = {}
        if not recipe.probe_every:
            return
        held_out = split_patients(store.patients, HELD_OUT, "monitor")
        for task in load_tasks(store):
            if not task.patient_ids:  # queries and bank could share patients
                continue
            labels = task.labels(store)
            own = np.intersect1d(rows, store.select(dataset=task.dataset, split=task.train))
            labelled = own[np.isfinite(labels[own]).any(axis=1)]
            bank = evenly_spaced(labelled[~held_out[labelled]], BANK)
            queries = evenly_spaced(labelled[held_out[labelled]], QUERIES)
            if len(bank) and len(queries):
                self.tasks[task.name] = (task, bank, queries, labels)

    @property
    def title(self) -> str:
        """The name of the metric, with a warning if a label has too few images for a measure."""
        few = any(
            few_cases_note(count_cases(task.label_names(self.store), labels[queries]))
            for task, _, queries, labels in self.tasks.values()
        )
        return "k-NN AUROC (of few images, mostly chance)" if few else "k-NN AUROC"

    def is_due(self, epoch: int) -> bool:
        """Whether the monitor runs after this number of epochs."""
        return bool(self.tasks) and epoch % self.recipe.probe_every == 0

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """`tuning_metric` by task name. The backbone maps one-channel images [B, 1, S, S] to features [B, D]."""
        network = copy.deepcopy(backbone)
        size, mean, std = self.recipe.size, self.recipe.mean, self.recipe.std
        device = next(network.parameters()).device
        if self.recipe.recalibrate:
            recalibrate(network, self.store, self.rows, size, mean, std, device)
        result = {}
        for name, (task, bank, queries, labels) in self.tasks.items():
            bank_features, query_features = (
                extract_features(network, self.store, rows, size, mean, std, device) for rows in (bank, queries)
            )
            scores = knn_scores(bank_features, labels[bank], query_features)
            result[name] = tuning_metric(task, task.label_names(self.store), scores, labels[queries])
        return result


def evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spaced. The same arguments always return the same rows."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)] if len(rows) else rows
