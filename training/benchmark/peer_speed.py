"""`c2l benchmark peer`: images per second including input, compared with Lightly's MoCo on the same files."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.table import Table

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError
from c2l_models.progress import stage

from ..distributed import pick_device
from ..pretrain import train_step
from ..recipe import Objective, Recipe
from ..store.image_store import ImageStore
from ..store.prepare import prepare
from .frozen_run import endless_batches, frozen_run
from .input_images import find_images, link_files, source_name, synthetic_images
from .timing import Machine, load_average, median_and_range, ratios_by_round, save_json, synchronize

SCRIPT = Path(__file__).with_name("lightly_moco.py")
INSTALL = (
    "create an environment for Lightly: python -m venv peer && "
    "peer/bin/pip install lightly torch torchvision, then --peer-python peer/bin/python"
)
WARM_UP = 3  # untimed steps at the start; the peer has two more per worker, because its loader prefetches batches

PASSES = {"peer": 3, "moco": 3, "c2l": 6}
"""Network passes per image: 2 forward and 1 backward in MoCo, 4 forward and 2 backward in C2L."""
NAMES = {
    "peer": "Lightly's MoCo with its own loader",
    "moco": "this pipeline, MoCo",
    "c2l": "this pipeline, C2L",
}


@dataclass(frozen=True)
class PeerBenchmark:
    """Seconds per step of both pipelines on the same files, timed alternately.

    Attributes:
        source: the folder of the images, or "synthetic images".
        files: number of files that both read.
        distinct_images: number of different images that the files link to.
        side: side of the prepared store's images in pixels.
        prepare_seconds: time to make the store, once.
        size: side of the views in pixels.
        peer: versions of the peer's libraries, number of its decoding processes and of its torch threads.
        seconds: seconds per step, one value per round, by pipeline: "peer", "moco" (this pipeline with MoCo, the first
            of C2L's three contrasts) and "c2l".
    """

    recipe: str
    architecture: str
    source: str
    files: int
    distinct_images: int
    side: int
    prepare_seconds: float
    size: int
    batch_size: int
    precision: str
    machine: Machine
    peer: dict[str, Any]
    seconds: dict[str, tuple[float, ...]]

    @property
    def ratios(self) -> dict[str, float]:
        """Images per second divided by the peer's rate; medians over rounds. "moco" is the peer's method."""
        return {name: median(ratios_by_round(self.seconds["peer"], times)) for name, times in self.seconds.items()}

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        save_json(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        versions = ", ".join(f"{name} {version}" for name, version in self.peer["versions"].items())
        table = Table(
            title=f"{self.architecture}, batches of {self.batch_size}, views of {self.size} pixels, {self.precision}; "
            f"{self.files:,} files of {self.distinct_images:,} different images in {self.source}",
            caption=f"{self.machine}; medians of {len(self.seconds['peer'])} rounds. Peer: {versions}, "
            f"{self.peer['workers']} loader processes. Store of {self.side} pixels, prepared once in "
            f"{self.prepare_seconds:.1f} s. Network passes per image, forward plus backward: {PASSES['peer']} in MoCo, "
            f"{PASSES['c2l']} in C2L",
        )
        table.add_column("")
        for column in ("images/s", "rate / peer's", "network passes/s", "rate / peer's"):
            table.add_column(column, justify="right")
        for name, seconds in self.seconds.items():
            rate = self.batch_size / median(seconds)
            ratios = ratios_by_round(self.seconds["peer"], seconds)
            share = PASSES[name] / PASSES["peer"]
            passes = f"{rate * PASSES[name]:,.0f}", median_and_range([ratio * share for ratio in ratios], 2)
            table.add_row(NAMES[name], f"{rate:,.1f}", median_and_range(ratios, 2), *passes)
        return table


def time_peer(
    recipe: Recipe,
    images: Path | None = None,
    peer_python: Path | None = None,
    batch_size: int = 64,
    size: int = 128,
    files: int = 1000,
    steps: int = 20,
    workers: int | None = None,
    repeats: int = 3,
    device: str = "auto",
    progress: bool = True,
) -> PeerBenchmark:
    """Time steps of the peer, of MoCo in this pipeline, and of C2L alternately, including loading and decoding.

    The peer decodes the files in each epoch, which is its usual way; this pipeline prepares a store once. Both have the
    same network, batch size, view size, precision and queue length.

    Args:
        recipe: defines the C2L step; the peer uses its precision and queue length.
        images: a folder of PNG or JPEG images; None uses synthetic images of 1024 pixels.
        peer_python: an interpreter that has lightly, torch and torchvision.
        batch_size: B, replaces the recipe's.
        size: side S of the views, replaces the recipe's.
        files: number of files that both read; each is a link to an image, and several may link to the same image.
        steps: timed steps per round, after the untimed steps.
        workers: number of the peer's decoding processes, by default one per core.
        repeats: number of rounds.
        device: "cpu", "cuda", or "auto": CUDA if available.
        progress: show a progress bar.

    Raises:
        C2LError: the interpreter does not exist or cannot run the peer; the message says what to install.
        DatasetError: the folder contains no PNG or JPEG file.
        RecipeError: the recipe does not allow this batch size or view size.
    """
    if peer_python is None or not peer_python.is_file():
        raise C2LError(f"expected an interpreter with lightly, found none at {peer_python}; {INSTALL}")
    recipe = replace(recipe, batch_size=batch_size, size=size, method="c2l", objective=Objective())
    moco = replace(recipe, method="moco")
    workers = (os.cpu_count() or 1) if workers is None else workers
    torch_device, load_before = pick_device(device), load_average()
    with tempfile.TemporaryDirectory() as folder:
        distinct = find_images(images or synthetic_images(Path(folder) / "synthetic"))
        root = link_files(distinct, files, Path(folder) / "files")
        report = prepare([("folder", root)], Path(folder) / "store", round(size * 256 / 224), progress=False)
        store = ImageStore.open(report.store)
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        with stage("timing", repeats, "rounds", progress) as line:
            for _ in range(repeats):
                reported = run_peer(peer_python, recipe, root, steps, workers, torch_device)
                seconds["peer"].append(reported["seconds"])
                seconds["moco"].append(seconds_per_step(moco, store, steps, torch_device))
                seconds["c2l"].append(seconds_per_step(recipe, store, steps, torch_device))
                line.advance()
    return PeerBenchmark(
        recipe=recipe.name,
        architecture=recipe.architecture,
        source=source_name(images),
        files=files,
        distinct_images=min(len(distinct), files),
        side=store.size,
        prepare_seconds=report.seconds,
        size=size,
        batch_size=batch_size,
        precision=recipe.precision,
        machine=Machine.after_benchmark(torch_device, load_before),
        peer={"workers": workers, "threads": reported["threads"], "versions": reported["versions"]},
        seconds={name: tuple(times) for name, times in seconds.items()},
    )


def run_peer(
    python: Path, recipe: Recipe, images: Path, steps: int, workers: int, device: torch.device
) -> dict[str, Any]:
    """Run the peer in its own interpreter and return its report: seconds per step, threads, versions."""
    architecture = find_architecture(recipe.architecture)
    options = {
        "images": images,
        "architecture": recipe.architecture,
        "first-conv": architecture.first_conv,
        "classifier": architecture.classifier,
        "precision": recipe.precision,
        "device": device.type,
        "size": recipe.size,
        "batch-size": recipe.batch_size,
        "queue-length": recipe.queue_length,
        "workers": workers,
        "steps": steps,
        "warm-up": WARM_UP + 2 * workers,
    }
    command = [str(python), "-I", str(SCRIPT), *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise C2LError(f"{python} cannot run Lightly: {reason}; {INSTALL}")
    reported: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reported


def seconds_per_step(recipe: Recipe, store: ImageStore, steps: int, device: torch.device) -> float:
    """Seconds per step of this pipeline, including its input."""
    run = frozen_run(recipe, store, device)
    started = 0.0
    for number, images in enumerate(islice(endless_batches(recipe, store, device), WARM_UP + steps)):
        if number == WARM_UP:
            synchronize(device)
            started = time.perf_counter()
        train_step(run.model, run.optimizer, images, run.seeded(number)).metrics()
    synchronize(device)
    return (time.perf_counter() - started) / steps
