"""Pretraining runs for timing: a learning rate of 0, endless batches, and stores of noise."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ..batches import batches
from ..distributed import ALONE
from ..recipe import Recipe
from ..run import Run
from ..store.image_store import ImageStore
from ..store.store_format import IMAGES


def frozen_run(recipe: Recipe, store: ImageStore, device: torch.device) -> Run:
    """A new run with a learning rate of 0: each step does the same work and leaves the student's weights unchanged."""
    run = Run(recipe, store, np.arange(len(store)), Path(), ALONE, device)
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = 0.0
    return run


def endless_batches(recipe: Recipe, store: ImageStore, device: torch.device) -> Iterator[torch.Tensor]:
    """A run's batches of images, uint8 [B, 1, S, S], from the whole store, without end."""
    return (batch.images for batch in batches(store, np.arange(len(store)), recipe, device))


def noise_in_memory(count: int, side: int, device: torch.device) -> ImageStore:
    """A store of `count` images of noise, uint8 [count, side, side], on the device."""
    noise = np.random.default_rng(0).integers(256, size=(count, side, side), dtype=np.uint8)
    return ImageStore(path=Path(), images=torch.from_numpy(noise).to(device), index=pa.table({}), sha256="")


def noise_on_disk(folder: Path, size_in_bytes: int, side: int) -> ImageStore:
    """A store of noise, mapped from a file of `size_in_bytes` in the folder."""
    shape = (size_in_bytes // side**2, side, side)
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
    random = np.random.default_rng(0)
    for start in range(0, len(images), 1024):
        images[start : start + 1024] = random.integers(256, size=images[start : start + 1024].shape, dtype=np.uint8)
    images.flush()
    store = ImageStore(path=folder, images=images, index=pa.table({}), sha256="")
    return map_again(store, folder / IMAGES)


def map_again(store: ImageStore, file: Path) -> ImageStore:
    """The same store, whose array is mapped from this .npy file once more."""
    return replace(store, images=np.load(file, mmap_mode="r"))
