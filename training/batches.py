"""Training images and their order. Both depend on recipe and store alone, so a resumed run has the same batches."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from c2l_models.errors import DatasetError

from .distributed import ALONE, World
from .patient_splits import split_patients
from .recipe import Recipe
from .store.image_store import ImageStore

READ_AHEAD = 2
"""Batches that are gathered ahead of their step."""


def training_rows(recipe: Recipe, store: ImageStore) -> np.ndarray:
    """The store's rows that a recipe trains on, int64 [N], ascending, each once.

    Rows of a split named "test" are used only if a source names that split, or all splits ("dataset:*"). The share
    `recipe.hold_out` of the patients is left out (stream "pretraining" of patient_splits).

    Raises:
        DatasetError: the store has no image of one of the recipe's sources.
    """
    no_test = store.index["split"].to_numpy() != "test"
    parts = [] if recipe.sources else [np.flatnonzero(no_test)]
    for source in recipe.sources:
        dataset, _, split = source.partition(":")
        part = store.select(dataset=dataset, split=split if split not in ("", "*") else None)
        if not split:
            part = part[no_test[part]]
        if not len(part):
            raise DatasetError(
                f"recipe {recipe.name} trains on {source}, but {store.path} has no image of it; add this source to "
                "a store with `c2l prepare`, or set --recipe.sources to data sets that the store has"
            )
        parts.append(part)
    rows = np.unique(np.concatenate(parts))
    return rows[~split_patients(store.patients[rows], recipe.hold_out, "pretraining")] if recipe.hold_out else rows


class BatchSettings(Protocol):
    """The settings that determine a run's batches: a recipe, or the settings of a fine-tuning run."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


def balance_groups(recipe: Recipe, store: ImageStore, rows: np.ndarray) -> np.ndarray | None:
    """The number of each row's source, int64 [N], if the recipe balances its batches over sources; otherwise None."""
    return np.unique(store.sources[rows], return_inverse=True)[1] if recipe.balance == "source" else None


def epoch_order(rows: np.ndarray, run: BatchSettings, epoch: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The rows in an epoch's random order, int64, which depends on seed and epoch.

    Without groups it has each of the N rows once. With groups, each batch has the same number of rows of every group,
    or one more, and the epoch still has N // B batches of B rows. Within an epoch, a row of a small group is used
    again when all rows of the group have been used; of a large group, only a random part is used.

    Args:
        rows: the store's rows to train on, int64 [N].
        run: seed and batch size B.
        epoch: counted from 0.
        groups: the group of each row, int64 [N], from 0; None: the natural proportions.
    """
    random = np.random.default_rng((run.seed, epoch))
    if groups is None:
        return random.permutation(rows)
    drawn = np.arange(len(rows) // run.batch_size * run.batch_size)
    members = [rows[groups == group] for group in random.permutation(groups.max() + 1)]
    for first, group in enumerate(members):  # every len(members)-th place, so that each batch has its share
        places = len(drawn[first :: len(members)])
        passes = [random.permutation(group) for _ in range(-(-places // len(group)))]
        drawn[first :: len(members)] = np.concatenate(passes)[:places]
    return random.permuted(drawn.reshape(-1, run.batch_size), axis=1).ravel()


@dataclass(frozen=True)
class Batch:
    """One step's images.

    Attributes:
        images: uint8 [B, 1, S, S] on the device: this process's part of the batch.
        rows: int64 [B] on the device, the images' rows in the store.
        waited: seconds that the step waited for this batch.
    """

    images: Tensor
    rows: Tensor
    waited: float


def batches(
    store: ImageStore,
    rows: np.ndarray,
    run: BatchSettings,
    device: torch.device,
    world: World = ALONE,
    first: int = 0,
    last: int | None = None,
    groups: np.ndarray | None = None,
    resident: bool | None = None,
) -> Iterator[Batch]:
    """A run's batches, from step `first` on.

    An epoch's last images are left out if they do not fill a batch; the next epoch has another order. A store that
    fits is copied to the GPU; otherwise batches are gathered ahead, in pinned memory, while the device computes.

    Args:
        store: the images.
        rows: the store's rows to train on.
        run: seed and batch size.
        device: the device of the batches.
        world: the processes; each gets an equal part of every batch.
        first: number of finished steps.
        last: number of steps of the whole run; None: the batches are endless.
        groups: as in `epoch_order`.
        resident: whether the store is copied to the GPU; None: as `fits` says.
    """
    upcoming: Iterator[tuple[Tensor, Tensor]]
    if fits(store, device) if resident is None else resident:
        store = store.to(device)
        upcoming = ((store[own], own) for own in _shares(rows, run, device, world, first, last, groups))
    else:
        upcoming = _read_ahead(store, _shares(rows, run, torch.device("cpu"), world, first, last, groups), device)
    while True:
        began = time.perf_counter()
        found = next(upcoming, None)
        if found is None:
            return
        yield Batch(*found, time.perf_counter() - began)


def fits(store: ImageStore, device: torch.device) -> bool:
    """Whether the store takes at most half of the GPU's memory. False on the CPU, which reads the memory map."""
    if device.type != "cuda":
        return False
    return store.images.nbytes <= torch.cuda.get_device_properties(device).total_memory / 2


def batch_rows(rows: np.ndarray, run: BatchSettings, step: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The rows of a step's whole batch, int64 [W B]; `groups` as in `epoch_order`."""
    epoch, position = divmod(step, len(rows) // run.batch_size)
    return epoch_order(rows, run, epoch, groups)[position * run.batch_size :][: run.batch_size]


def _shares(
    rows: np.ndarray,
    run: BatchSettings,
    device: torch.device,
    world: World,
    first: int,
    last: int | None,
    groups: np.ndarray | None,
) -> Iterator[Tensor]:
    """This process's rows of each step, int64 [B] on the device. An epoch's order is copied there once."""
    steps_per_epoch = len(rows) // run.batch_size
    for step in count(first) if last is None else range(first, last):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first:
            order = torch.from_numpy(epoch_order(rows, run, epoch, groups)).to(device)
        yield world.block(order[position * run.batch_size : (position + 1) * run.batch_size])


def _read_ahead(store: ImageStore, shares: Iterator[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and rows of each share, gathered by a thread while the device computes, and pinned for a GPU."""

    def gather(own: Tensor) -> tuple[Tensor, Tensor]:
        found = store[own], own
        if device.type == "cuda":
            images, own = (part.pin_memory().to(device, non_blocking=True) for part in found)
            return images, own
        return found

    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for own in shares:
            waiting.append(reader.submit(gather, own))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
