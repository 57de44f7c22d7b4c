"""Images a second that the store and the augmentation deliver, beside what a pretraining step consumes."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from rich.table import Table

from c2l_models.errors import DatasetError

from ..augment import two_views
from ..batches import batches, fits
from ..distributed import pick_device
from ..pretrain import train_step
from ..recipe import Recipe
from ..store.image_store import ImageStore
from ..store.store_format import IMAGES
from .step_speed import still_run
from .timing import Machine, Work, load_average, pairwise, save, spread, take_turns

STORE_BYTES = 2**28
"""Of the noise that stands in for a store."""

BATCHES = 32
"""At most so many to a call of an input's work: its start, a file mapped and a thread begun, is small beside them."""


@dataclass(frozen=True)
class InputBenchmark:
    """Input alone and whole steps, by turns in one run.

    Attributes:
        store: what was read: a store's folder, or what stands in for it.
        images, side: the store's count N and its images' side in pixels.
        step: seconds a batch of whole pretraining steps, one a round.
        inputs: seconds a batch of gathering and two views, one a round, by where the store lies: "resident" on the
            device or in memory, "mapped" from a file that the system has cached, "cold" from one that it has not.
    """

    recipe: str
    store: str
    images: int
    side: int
    size: int
    batch_size: int
    precision: str
    machine: Machine
    step: tuple[float, ...]
    inputs: dict[str, tuple[float, ...]]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times what the step consumes, medians over rounds."""
        return {name: median(pairwise(self.step, seconds)) for name, seconds in self.inputs.items()}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        save(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.recipe}: batches of {self.batch_size}, two views of {self.size} pixels, "
            f"from {self.images:,} images of {self.side} pixels ({self.store})",
            caption=f"{self.machine}; step in {self.precision}; medians of {len(self.step)} rounds",
        )
        table.add_column("")
        for column in ("seconds a batch", "images/s", "of what a step consumes"):
            table.add_column(column, justify="right")
        for name, seconds in self.inputs.items():
            middle = median(seconds)
            ratio = spread(pairwise(self.step, seconds), 1)
            table.add_row(f"input, {name}", f"{middle:.4f}", f"{self.batch_size / middle:,.0f}", ratio)
        middle = median(self.step)
        table.add_row("pretraining step", f"{middle:.4f}", f"{self.batch_size / middle:,.0f}", "1")
        return table


def time_input(
    recipe: Recipe,
    store: Path | None = None,
    batch_size: int = 64,
    size: int = 128,
    repeats: int = 7,
    device: str = "auto",
    progress: bool = True,
) -> InputBenchmark:
    """Time `batches` and `two_views` alone, and whole steps that are fed by them, by turns.

    Args:
        recipe: what the views and a step are.
        store: a store's folder; None: noise in a temporary file, its side to the view's as 256 to 224.
        batch_size: B, in place of the recipe's.
        size: S of the views, in place of the recipe's.
        repeats: rounds.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        progress: show a progress line.

    Raises:
        DatasetError: no store, or one of fewer images than a batch.
        RecipeError: the recipe cannot have this batch size or view size.
    """
    recipe = replace(recipe, batch_size=batch_size, size=size)
    place = pick_device(device)
    if store is not None:
        return _time(recipe, ImageStore.open(store), str(store), repeats, place, progress)
    with tempfile.TemporaryDirectory() as folder:
        noise = write_noise(Path(folder), round(size * 256 / 224))
        return _time(recipe, noise, "noise", repeats, place, progress)


def _time(
    recipe: Recipe, store: ImageStore, name: str, repeats: int, device: torch.device, progress: bool
) -> InputBenchmark:
    if len(store) < recipe.batch_size:
        raise DatasetError(f"{name} holds {len(store)} images, fewer than one batch of {recipe.batch_size}")
    before = load_average()
    works = build_works(recipe, store, device)
    count = batches_a_call(recipe, store)
    count_of = {way: 1 if way == "step" else count for way in works}
    taken = take_turns(works, repeats, device, progress)
    seconds = {way: tuple(value / count_of[way] for value in values) for way, values in taken.items()}
    return InputBenchmark(
        recipe=recipe.name,
        store=name,
        images=len(store),
        side=store.size,
        size=recipe.size,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        machine=Machine.now(device, before),
        step=seconds.pop("step"),
        inputs=seconds,
    )


def build_works(recipe: Recipe, store: ImageStore, device: torch.device) -> dict[str, Work]:
    """One "step", and by each way to hold the store that this device has, `batches_a_call` batches of two views."""
    run = still_run(recipe, store, device)
    generator = run.seeded(0)
    file = store.path / IMAGES
    # Not read through the map: the system keeps cached what some process has mapped and touched.
    resident = store.to(device) if fits(store, device) else replace(store, images=np.load(file))
    feed = run_batches(recipe, resident, device)

    def step() -> None:
        train_step(run.model, run.optimizer, next(feed), generator)

    def deliver(source: ImageStore) -> None:
        for images in islice(run_batches(recipe, source, device), batches_a_call(recipe, source)):
            two_views(images, recipe, generator)

    def deliver_cold() -> None:
        forget(file)
        deliver(mapped(resident, file))

    works: dict[str, Work] = {"step": step, "resident": lambda: deliver(resident)}
    if not fits(resident, device):
        works["mapped"] = lambda: deliver(mapped(resident, file))
        if hasattr(os, "posix_fadvise"):
            works["cold"] = deliver_cold
    return works


def batches_a_call(recipe: Recipe, store: ImageStore) -> int:
    """Batches in one call of an input's work: no image twice, for a cold one is warm by then."""
    return min(BATCHES, len(store) // recipe.batch_size)


def run_batches(recipe: Recipe, store: ImageStore, device: torch.device) -> Iterator[torch.Tensor]:
    """A run's batches of images [B, 1, S, S] from all of a store, for ever."""
    forever = replace(recipe, epochs=2**40)
    return (batch.images for batch in batches(store, np.arange(len(store)), forever, device))


def mapped(store: ImageStore, file: Path) -> ImageStore:
    """The store with its array mapped from its file anew."""
    return replace(store, images=np.load(file, mmap_mode="r"))


def forget(file: Path) -> None:
    """Have the system drop a file from its cache, but for what some process has mapped."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_noise(folder: Path, side: int) -> ImageStore:
    """A store of noise, `STORE_BYTES` in all, mapped from a file in the folder."""
    shape = (STORE_BYTES // side**2, side, side)
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
    random = np.random.default_rng(0)
    for start in range(0, len(images), 1024):
        images[start : start + 1024] = random.integers(256, size=images[start : start + 1024].shape, dtype=np.uint8)
    images.flush()
    return mapped(ImageStore(path=folder, images=images, index=pa.table({}), sha256=""), folder / IMAGES)
