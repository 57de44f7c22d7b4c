"""What a run trains on, and in which order: functions of recipe and store alone, so that a resumed run finds both."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
"""Batches that are gathered before they are asked for."""


def training_rows(recipe: Recipe, store: ImageStore) -> np.ndarray:
    """The store's rows that a recipe trains on, int64 [N], ascending, each once.

    Rows of a split named "test" are among them only where a source asks for that split, or for all ("dataset:*").
    `recipe.hold_out` leaves out the patients of the stream "pretraining" (see patient_splits).

    Raises:
        DatasetError: a source of the recipe is not in the store.
    """
    no_test = store.index["split"].to_numpy() != "test"
    if not recipe.sources:
        return _without_held_out(np.flatnonzero(no_test), recipe, store)
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
    return _without_held_out(np.unique(np.concatenate(parts)), recipe, store)


def _without_held_out(rows: np.ndarray, recipe: Recipe, store: ImageStore) -> np.ndarray:
    return rows[~split_patients(store.patients[rows], recipe.hold_out, "pretraining")] if recipe.hold_out else rows


class Order(Protocol):
    """What a run's batches follow from: a recipe, or the settings of another run."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...


def epoch_order(rows: np.ndarray, run: Order, epoch: int) -> np.ndarray:
    """The rows in an epoch's order, a function of seed and epoch."""
    return np.random.default_rng((run.seed, epoch)).permutation(rows)


@dataclass(frozen=True)
class Batch:
    """One step's images.

    Attributes:
        images: uint8 [B, 1, S, S] on the device: this process's part of the batch.
        rows: int64 [B] on the device, the images' rows in the store.
        waited: seconds that the step had to wait for it.
    """

    images: Tensor
    rows: Tensor
    waited: float


def batches(
    store: ImageStore,
    rows: np.ndarray,
    run: Order,
    device: torch.device,
    world: World = ALONE,
    first: int = 0,
) -> Iterator[Batch]:
    """A run's batches from step `first` on.

    An epoch's last images that do not fill a batch are left out; the next epoch has another order. A store that fits
    is held by the GPU; of any other, batches are read ahead while the device computes.
    """
    upcoming: Iterator[tuple[Tensor, Tensor]]
    if fits(store, device):
        store = store.to(device)
        upcoming = ((store[own], own) for own in _shares(rows, run, device, world, first))
    else:
        upcoming = _read_ahead(store, _shares(rows, run, torch.device("cpu"), world, first), device)
    while True:
        began = time.perf_counter()
        found = next(upcoming, None)
        if found is None:
            return
        yield Batch(*found, time.perf_counter() - began)


def fits(store: ImageStore, device: torch.device) -> bool:
    """Whether a GPU holds the whole store and has as much left for the networks; for the CPU it is mapped as it is."""
    if device.type != "cuda":
        return False
    return store.images.nbytes <= torch.cuda.get_device_properties(device).total_memory / 2


def batch_rows(rows: np.ndarray, run: Order, step: int) -> np.ndarray:
    """The rows of a step's batch, int64 [W B]."""
    epoch, position = divmod(step, len(rows) // run.batch_size)
    return epoch_order(rows, run, epoch)[position * run.batch_size :][: run.batch_size]


def _shares(rows: np.ndarray, run: Order, device: torch.device, world: World, first: int) -> Iterator[Tensor]:
    """This process's rows of each step, int64 [B] on the device, to which an epoch's order is sent once."""
    steps_per_epoch = len(rows) // run.batch_size
    for step in range(first, run.epochs * steps_per_epoch):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first:
            order = torch.from_numpy(epoch_order(rows, run, epoch)).to(device)
        yield world.block(order[position * run.batch_size : (position + 1) * run.batch_size])


def _read_ahead(store: ImageStore, shares: Iterator[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The shares' images and rows, gathered by a thread while the device computes; a GPU's go through pinned memory."""

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
