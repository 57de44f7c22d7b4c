"""Are the features getting better? A k-NN vote while pretraining goes on: a falling loss alone proves nothing."""

import copy

import numpy as np
from torch import nn

from ..evaluation.predictions import Predictions, measure
from ..evaluation.tasks import load_tasks
from ..features import extract_features, recalibrate
from ..patient_splits import split_patients
from ..recipe import Recipe
from ..store.image_store import ImageStore
from .knn import knn_scores

BANK, QUERIES = 4000, 1000
HELD_OUT = 0.2


class KnnMonitor:
    """k-NN AUROC on training patients held out from the bank; test rows are never looked at.

    Of each task it is the headline figure. The network under training is not changed, nor is any random state.
    """

    def __init__(self, recipe: Recipe, store: ImageStore, rows: np.ndarray) -> None:
        """`rows`: the rows that are trained on; tasks without a label among them are left out."""
        self.recipe, self.store, self.rows = recipe, store, rows
        self.tasks = {}
        if not recipe.probe_every:
            return
        held_out = split_patients(store.patients, HELD_OUT, "monitor")
        for task in load_tasks(store):
            labels = task.labels(store)
            labelled = rows[np.isfinite(labels[rows]).any(axis=1)]
            bank = evenly_spaced(labelled[~held_out[labelled]], BANK)
            queries = evenly_spaced(labelled[held_out[labelled]], QUERIES)
            if len(bank) and len(queries):
                self.tasks[task.name] = (task, bank, queries, labels)

    def is_due(self, epoch: int) -> bool:
        """Whether there is something to probe after so many epochs."""
        return bool(self.tasks) and epoch % self.recipe.probe_every == 0

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """AUROC of each task for a one-channel backbone."""
        network = copy.deepcopy(backbone)
        size, mean, std = self.recipe.size, self.recipe.mean, self.recipe.std
        device = next(network.parameters()).device
        if self.recipe.recalibrate:
            recalibrate(network, self.store, self.rows, size, mean, std, device)
        result = {}
        for name, (task, bank, queries, labels) in self.tasks.items():
            known, asked = (
                extract_features(network, self.store, rows, size, mean, std, device) for rows in (bank, queries)
            )
            scores = knn_scores(known, labels[bank], asked)
            names = task.label_names(self.store)
            answers = Predictions(name, names, scores, labels[queries], self.store.patients[queries], threshold=0.5)
            result[name] = measure(answers, task, bootstrap=0)[task.headline].value
        return result


def evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spaced: the same ones each time."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)] if len(rows) else rows
