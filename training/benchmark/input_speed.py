"""`c2l benchmark input`: images per second from store and augmentation, compared with a pretraining step's demand."""

import os
import tempfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.table import Table

from c2l_models.errors import DatasetError

from ..augment import two_views
from ..batches import fits
from ..distributed import pick_device
from ..pretrain import train_step
from ..recipe import Recipe
from ..store.image_store import ImageStore
from ..store.store_format import IMAGES
from .frozen_run import endless_batches, frozen_run, map_again, noise_on_disk
from .timing import Machine, Workload, load_average, median_and_range, ratios_by_round, save_json, time_alternately

STORE_BYTES = 2**28
"""Size of the store of noise."""

BATCHES = 32
"""Maximum number of batches per call. With many, the time to map the file and to start a thread is negligible."""


@dataclass(frozen=True)
class InputBenchmark:
    """Seconds of the input alone and of whole steps, timed alternately.

    Attributes:
        store: the store's folder, or "noise".
        images, side: the store's number of images N and their side in pixels.
        size: side of the views in pixels.
        step: seconds per whole pretraining step, one value per round.
        inputs: seconds to gather a batch and make its two views, one value per round, by location of the images:
            "resident" (on the device or in memory), "mapped" (a file in the system's cache) and "cold" (a file that is
            not in the cache).
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
        """The rate of each input divided by the rate that the step needs; medians over rounds."""
        return {name: median(ratios_by_round(self.step, seconds)) for name, seconds in self.inputs.items()}

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        save_json(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.recipe}: batches of {self.batch_size}, two views of {self.size} pixels, "
            f"from {self.images:,} images of {self.side} pixels ({self.store})",
            caption=f"{self.machine}; step in {self.precision}; medians of {len(self.step)} rounds",
        )
        table.add_column("")
        for column in ("seconds per batch", "images/s", "rate / rate of the step"):
            table.add_column(column, justify="right")
        for name, seconds in self.inputs.items():
            middle = median(seconds)
            ratio = median_and_range(ratios_by_round(self.step, seconds), 1)
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
    """Time the input alone (`batches` and `two_views`) and whole steps with this input alternately.

    Args:
        recipe: defines the views and the step.
        store: a store's folder; None uses images of noise in a temporary file, with a side of 256/224 of `size`.
        batch_size: B, replaces the recipe's.
        size: side S of the views, replaces the recipe's.
        repeats: number of rounds.
        device: "cpu", "cuda", or "auto": CUDA if available.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder is not a store, or it has fewer images than a batch.
        RecipeError: the recipe does not allow this batch size or view size.
    """
    recipe = replace(recipe, batch_size=batch_size, size=size)
    torch_device = pick_device(device)
    if store is not None:
        return _time(recipe, ImageStore.open(store), str(store), repeats, torch_device, progress)
    with tempfile.TemporaryDirectory() as folder:
        noise = noise_on_disk(Path(folder), STORE_BYTES, round(size * 256 / 224))
        return _time(recipe, noise, "noise", repeats, torch_device, progress)


def _time(
    recipe: Recipe, store: ImageStore, name: str, repeats: int, device: torch.device, progress: bool
) -> InputBenchmark:
    if len(store) < recipe.batch_size:
        raise DatasetError(
            f"{name}: expected at least one batch of {recipe.batch_size} images, found {len(store)}; give a larger "
            "store or a smaller batch size"
        )
    load_before = load_average()
    workloads = build_workloads(recipe, store, device)
    batches = batches_per_call(recipe, store)
    batches_of = {name: 1 if name == "step" else batches for name in workloads}
    timed = time_alternately(workloads, repeats, device, progress)
    seconds = {name: tuple(value / batches_of[name] for value in values) for name, values in timed.items()}
    return InputBenchmark(
        recipe=recipe.name,
        store=name,
        images=len(store),
        side=store.size,
        size=recipe.size,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        machine=Machine.after_benchmark(device, load_before),
        step=seconds.pop("step"),
        inputs=seconds,
    )


def build_workloads(recipe: Recipe, store: ImageStore, device: torch.device) -> dict[str, Workload]:
    """The workloads "step", which is one step, and one per location of the store's images (see `InputBenchmark`).

    These make two views of `batches_per_call` batches. Only the locations that this device uses are included.
    """
    run = frozen_run(recipe, store, device)
    generator = run.seeded(0)
    file = store.path / IMAGES
    # Loaded, not mapped, because the system does not drop mapped pages from its cache, so no file would be cold.
    resident = store.to(device) if fits(store, device) else replace(store, images=np.load(file))
    step_input = endless_batches(recipe, resident, device)

    def step() -> None:
        train_step(run.model, run.optimizer, next(step_input), generator)

    def make_views(source: ImageStore) -> None:
        for images in islice(endless_batches(recipe, source, device), batches_per_call(recipe, source)):
            two_views(images, recipe, generator)

    def make_views_cold() -> None:
        drop_from_cache(file)
        make_views(map_again(resident, file))

    workloads: dict[str, Workload] = {"step": step, "resident": lambda: make_views(resident)}
    if not fits(resident, device):
        workloads["mapped"] = lambda: make_views(map_again(resident, file))
        if hasattr(os, "posix_fadvise"):
            workloads["cold"] = make_views_cold
    return workloads


def batches_per_call(recipe: Recipe, store: ImageStore) -> int:
    """Batches per call of an input workload. A call reads no image twice, because then it would be cached."""
    return min(BATCHES, len(store) // recipe.batch_size)


def drop_from_cache(file: Path) -> None:
    """Make the system drop a file from its cache, except for parts that a process has mapped."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
