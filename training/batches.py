"""What a run trains on, and in which order: functions of recipe and store alone, so that a resumed run finds both."""

import time
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from c2l_models.errors import DatasetError

from .image_store import ImageStore
from .recipe import Recipe


def training_rows(recipe: Recipe, store: ImageStore) -> np.ndarray:
    """The store's rows that a recipe trains on, int64 [N], ascending, each once.

    Rows of a split named "test" are among them only where a source asks for that split, or for all ("dataset:*").

    Raises:
        DatasetError: a source of the recipe is not in the store.
    """
    no_test = store.index["split"].to_numpy() != "test"
    if not recipe.sources:
        return np.flatnonzero(no_test)
    parts = []
    for source in recipe.sources:
        dataset, _, split = source.partition(":")
        part = store.select(dataset=dataset, split=split if split not in ("", "*") else None)
        if not split:
            part = part[no_test[part]]
        if not len(part):
            raise DatasetError(
                f"recipe {recipe.name} trains on {source}, and {store.path} holds none of it; "
                "make a store that does with `c2l prepare`, or name what there is: --recipe.sources"
            )
        parts.append(part)
    return np.unique(np.concatenate(parts))


def epoch_order(rows: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """The rows in an epoch's order, a function of seed and epoch."""
    return np.random.default_rng((recipe.seed, epoch)).permutation(rows)


def batches(images: ImageStore, rows: np.ndarray, recipe: Recipe, first: int = 0) -> Iterator[tuple[Tensor, float]]:
    """A run's batches from step `first` on: uint8 [B, 1, S, S], each with the seconds that it was waited for.

    An epoch's last images that do not fill a batch are left out; the next epoch has another order.
    """
    steps_per_epoch = len(rows) // recipe.batch_size
    for step in range(first, recipe.epochs * steps_per_epoch):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first:
            order = epoch_order(rows, recipe, epoch)
        began = time.perf_counter()
        batch = images[order[position * recipe.batch_size : (position + 1) * recipe.batch_size]]
        yield batch, time.perf_counter() - began
