"""`c2l benchmark probe`: a linear probe compared with reading its images and the network's forward pass."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from c2l_models.embedding import evaluating

from ..distributed import pick_device
from ..evaluation.tasks import load_task
from ..features import clean_batches
from ..initialization import Initialization, load_initialization
from ..probing.probe import probe
from ..store.image_store import ImageStore
from .timing import Machine, Workload, load_average, median_and_range, ratios_by_round, save_json, time_alternately


@dataclass(frozen=True)
class ProbeBenchmark:
    """Seconds of a probe, of a second probe of the same network, and of the first one's parts, timed alternately.

    Attributes:
        task: name of the task.
        model: name of the network.
        images: number of images whose features are computed.
        labels: number of labels.
        size: input side in pixels.
        probe: seconds of the whole probe without baselines, with its report and 1,000 bootstrap resamples.
        again: seconds of the same call, when the features are in the cache.
        read: seconds to read the images from the store and to resize and normalise them.
        forward: seconds of the network's forward pass on batches in memory.
    """

    task: str
    model: str
    images: int
    labels: int
    size: int
    machine: Machine
    probe: tuple[float, ...]
    again: tuple[float, ...]
    read: tuple[float, ...]
    forward: tuple[float, ...]

    @property
    def ratios(self) -> dict[str, float]:
        """Seconds of each part divided by the seconds of the probe; medians over rounds."""
        return {name: median(ratios_by_round(times, self.probe)) for name, times in self._parts().items()}

    def _parts(self) -> dict[str, tuple[float, ...]]:
        both = tuple(map(sum, zip(self.read, self.forward, strict=True)))
        return {"read_and_forward": both, "forward": self.forward, "again": self.again}

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        save_json(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"Linear probe of {self.model} on {self.task}: {self.images:,} images of {self.size} pixels, "
            f"{self.labels} labels",
            caption=f"{self.machine}; medians of {len(self.probe)} rounds",
        )
        table.add_column("")
        for column in ("seconds", "this time / time of the probe"):
            table.add_column(column, justify="right")
        titles = {
            "probe": "c2l probe",
            "read_and_forward": "reading and forward pass",
            "forward": "forward pass alone",
            "again": "c2l probe again, features cached",
        }
        for name, seconds in ({"probe": self.probe} | self._parts()).items():
            ratio = "" if name == "probe" else median_and_range(ratios_by_round(seconds, self.probe))
            table.add_row(titles[name], f"{median(seconds):,.1f}", ratio)
        return table


def time_probe(
    store: ImageStore,
    target: str = "resnet18.c2l_open26k",
    task: str = "chestxray14",
    size: int = 128,
    repeats: int = 3,
    device: str = "auto",
    progress: bool = True,
) -> ProbeBenchmark:
    """Time a linear probe without baselines, and its parts, alternately on the same images.

    Args:
        store: images and labels of the task. Its own cache of features is not used.
        target: network, in a form that `load_initialization` accepts.
        task: name of the task.
        size: input side in pixels.
        repeats: number of rounds.
        device: "cpu", "cuda", or "auto": CUDA if available.
        progress: show a progress bar.

    Raises:
        C2LError: as `probe`.
    """
    load_before, torch_device, chosen = load_average(), pick_device(device), load_task(task)
    train = chosen.train_rows(store)
    rows = train if chosen.folds else np.concatenate([train, chosen.test_rows(store)])
    init = load_initialization(target, size=size, store=store, device=torch_device, calibrate_on=train)
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        warm.mkdir()
        run = partial(_probe, target, store, task, size, torch_device.type)
        workloads: dict[str, Workload] = {
            "probe": partial(_with_empty_cache, run),
            "again": partial(run, warm),  # the call before the first round fills its cache
            "read": partial(_read, init, store, rows, torch_device),
            "forward": partial(_forward, init, store, rows, torch_device),
        }
        seconds = time_alternately(workloads, repeats, torch_device, progress)
    machine = Machine.after_benchmark(torch_device, load_before)
    return ProbeBenchmark(task, init.name, len(rows), len(chosen.label_names(store)), size, machine, **seconds)


def _probe(target: str, store: ImageStore, task: str, size: int, device: str, folder: Path) -> None:
    """A probe with the cache and the report in this folder."""
    moved = replace(store, path=folder)
    probe(target, moved, task, folder / "report", size, baselines=False, device=device, progress=False)


def _with_empty_cache(run: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


def _read(init: Initialization, store: ImageStore, rows: NDArray[np.int64], device: torch.device) -> None:
    for _ in clean_batches(store, rows, init.size, init.mean, init.std, device):
        pass


def _forward(init: Initialization, store: ImageStore, rows: NDArray[np.int64], device: torch.device) -> None:
    """The forward pass on as many images as there are rows. The first batch is repeated."""
    images = next(clean_batches(store, rows, init.size, init.mean, init.std, device))
    with evaluating(init.network), torch.inference_mode():
        for start in range(0, len(rows), len(images)):
            init.network(images[: len(rows) - start]).cpu()
