"""Images a second end to end, beside Lightly's MoCo with its own loader on the same files."""

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
from rich.progress import track
from rich.table import Table

from c2l_models.errors import C2LError

from ..distributed import pick_device
from ..pretrain import train_step
from ..recipe import Objective, Recipe
from ..store.image_store import ImageStore
from ..store.prepare import prepare
from .input_speed import run_batches
from .prepare_speed import film_files, link, synthetic_films
from .step_speed import still_run
from .timing import Machine, load_average, pairwise, save, source_name, spread, synchronize

SCRIPT = Path(__file__).with_name("lightly_moco.py")
INSTALL = (
    "make an environment for the peer and name its interpreter: python -m venv peer && "
    "peer/bin/pip install lightly torch torchvision, then --peer-python peer/bin/python"
)
WARM_UP = 3  # steps before the timed ones; the peer has more, for what its loader has fetched ahead

PASSES = {"peer": 3, "moco": 3, "c2l": 6}
"""Network passes for an image, forward and backward: MoCo's are 2 and 1, C2L's 4 and 2."""
NAMES = {
    "peer": "Lightly's MoCo, its own loader",
    "moco": "this pipeline, MoCo's one contrast",
    "c2l": "this pipeline, C2L",
}


@dataclass(frozen=True)
class PeerBenchmark:
    """The same files through both pipelines, by turns.

    Attributes:
        images, files, films: the folder, how many files both read, and of how many different films they are.
        side: of the prepared store's images, pixels; `prepare_seconds`: what making the store took, once.
        peer: the versions of the peer's libraries, and how many processes decode for it.
        seconds: of a step, one a round: "peer", "moco" (this pipeline, with the first of C2L's three contrasts only,
            which is MoCo) and "c2l".
    """

    recipe: str
    architecture: str
    images: str
    files: int
    films: int
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
        """Images a second over the peer's, medians over rounds; "moco" compares like with like."""
        return {name: median(pairwise(self.seconds["peer"], times)) for name, times in self.seconds.items()}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        save(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        versions = ", ".join(f"{name} {version}" for name, version in self.peer["versions"].items())
        table = Table(
            title=f"{self.architecture}, batches of {self.batch_size}, views of {self.size} pixels, {self.precision}; "
            f"{self.files:,} files of {self.films:,} films in {self.images}",
            caption=f"{self.machine}; medians of {len(self.seconds['peer'])} rounds. Peer: {versions}, "
            f"{self.peer['workers']} loader processes. Prepared once, to {self.side} pixels, in "
            f"{self.prepare_seconds:.1f} s. Passes: forward and backward, {PASSES['peer']} an image for MoCo, "
            f"{PASSES['c2l']} for C2L",
        )
        table.add_column("")
        for column in ("images/s", "of the peer's", "network passes/s", "of the peer's"):
            table.add_column(column, justify="right")
        for name, seconds in self.seconds.items():
            rate = self.batch_size / median(seconds)
            ratios = pairwise(self.seconds["peer"], seconds)
            share = PASSES[name] / PASSES["peer"]
            passes = f"{rate * PASSES[name]:,.0f}", spread([ratio * share for ratio in ratios], 2)
            table.add_row(NAMES[name], f"{rate:,.1f}", spread(ratios, 2), *passes)
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
    """Time steps of the peer, of MoCo in this pipeline, and of C2L, by turns; loading and decoding included.

    The peer decodes files at each epoch, as it always does; this pipeline has prepared them once. Both have the same
    network, batch, view size, precision and queue length.

    Args:
        recipe: what a C2L step computes; its precision and queue are the peer's too.
        images: a folder of PNG or JPEG films; None: synthetic films of 1024 pixels.
        peer_python: an interpreter that has lightly, torch and torchvision.
        batch_size: B, in place of the recipe's.
        size: S, in place of the recipe's.
        files: how many files both read: the films, or links to them again and again where they are fewer.
        steps: so many are timed a round, after some that are not.
        workers: processes that decode for the peer, by default one a core.
        repeats: rounds.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        progress: show a progress line.

    Raises:
        C2LError: no such interpreter, or it cannot run the peer; the message says what to install.
        DatasetError: the folder holds no PNG and no JPEG.
        RecipeError: the recipe cannot have this batch size or view size.
    """
    if peer_python is None or not peer_python.is_file():
        raise C2LError(f"no interpreter for the peer at {peer_python}; {INSTALL}")
    recipe = replace(recipe, batch_size=batch_size, size=size, method="c2l", objective=Objective())
    moco = replace(recipe, method="moco")
    workers = (os.cpu_count() or 1) if workers is None else workers
    place, before = pick_device(device), load_average()
    with tempfile.TemporaryDirectory() as folder:
        films = film_files(images or synthetic_films(Path(folder) / "synthetic"))
        root = link(films, files, Path(folder) / "films")
        report = prepare([("folder", root)], Path(folder) / "store", round(size * 256 / 224), progress=False)
        store = ImageStore.open(report.store)
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        for _ in track(range(repeats), "timing", disable=not progress, transient=True):
            told = run_peer(peer_python, recipe, root, steps, workers, place)
            seconds["peer"].append(told["seconds"])
            seconds["moco"].append(seconds_a_step(moco, store, steps, place))
            seconds["c2l"].append(seconds_a_step(recipe, store, steps, place))
    return PeerBenchmark(
        recipe=recipe.name,
        architecture=recipe.architecture,
        images=source_name(images),
        files=files,
        films=min(len(films), files),
        side=store.size,
        prepare_seconds=report.seconds,
        size=size,
        batch_size=batch_size,
        precision=recipe.precision,
        machine=Machine.now(place, before),
        peer={"workers": workers, "threads": told["threads"], "versions": told["versions"]},
        seconds={name: tuple(times) for name, times in seconds.items()},
    )


def run_peer(
    python: Path, recipe: Recipe, images: Path, steps: int, workers: int, device: torch.device
) -> dict[str, Any]:
    """Run the peer in its own interpreter; what it tells: seconds a step, threads, versions."""
    options = {
        "images": images,
        "architecture": recipe.architecture,
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise C2LError(f"{python} cannot run the peer: {reason}; {INSTALL}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def seconds_a_step(recipe: Recipe, store: ImageStore, steps: int, device: torch.device) -> float:
    """Seconds a step of this pipeline, its input included."""
    run = still_run(recipe, store, device)
    began = 0.0
    for number, images in enumerate(islice(run_batches(recipe, store, device), WARM_UP + steps)):
        if number == WARM_UP:
            synchronize(device)
            began = time.perf_counter()
        train_step(run.model, run.optimizer, images, run.seeded(number)).metrics()
    synchronize(device)
    return (time.perf_counter() - began) / steps
