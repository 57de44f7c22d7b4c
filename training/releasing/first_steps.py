"""A recipe's first steps on one thread of a CPU: cheap to do again, and no other recipe, seed or images give them.

A release keeps their losses; `c2l reproduce release NAME --check` computes them anew.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from ..augment import Draws
from ..batches import Batch, training_rows
from ..distributed import ALONE
from ..objectives.method import MethodStep
from ..pretrain import share_batch, train
from ..recipe import Recipe
from ..run import Run
from ..run_files.log import progress_line
from ..run_files.run_folder import machine_name
from ..store.image_store import ImageStore
from ..store.store_files import STORE

STEPS, FEWEST = 24, 2
PIXELS = STEPS * 64 * 64**2
"""Of the views of all steps: so many steps of 64 images of 64 × 64 take ResNet-18 half a minute of one core."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FirstSteps:
    """What a recipe's first steps gave, and what its last bits depend on.

    Attributes:
        losses: of each step, float32, from the first one on.
        images: the sha256 of the steps' images, byte after byte in their order.
        prepared_with: the libraries that decoded the store's films and wrote its index, with their versions.
        precision: the recipe's: what the networks computed in.
        threads: of the CPU.
        torch: its version.
        instructions: see `instructions`.
        machine: the processor's name.
    """

    losses: tuple[float, ...]
    images: str
    prepared_with: Mapping[str, str]
    precision: str
    threads: int
    torch: str
    instructions: str
    machine: str

    def same_place(self, other: "FirstSteps") -> bool:
        """Whether both were computed by the same torch and instructions on as many threads of the same processor."""
        return all(getattr(self, key) == getattr(other, key) for key in ("torch", "instructions", "threads", "machine"))


def first_steps(recipe: Recipe, store: ImageStore, steps: int | None = None, progress: bool = True) -> FirstSteps:
    """Run a recipe's first steps as `pretrain` does, and keep nothing but their losses; no folder is written.

    Always on one thread of the CPU, so that two machines can be compared: a run that was trained on several threads
    or a GPU had losses that differ from these in the last digits, later on in more. What `torch.compile` would do is
    left out. The recipe's precision is kept; a processor without such instructions computes bfloat16 in float32.

    Args:
        recipe: what is computed.
        store: the images.
        steps: how many; by default as many as a minute takes (`usual_steps`). A recipe that has fewer is done to its
            end.
        progress: show a progress line.

    Raises:
        DatasetError: fewer images than one batch, or a source of the recipe is not in the store.
    """
    recipe = share_batch(replace(recipe, compile=False), ALONE)
    with one_thread():
        run = Run(recipe, store, training_rows(recipe, store), Path(os.devnull), ALONE, CPU)
        count = min(usual_steps(recipe) if steps is None else steps, run.total_steps)
        with progress_line(progress) as line:
            follower = _Follower(run, count, line)
            train(run, follower)
        return FirstSteps(
            losses=tuple(follower.losses),
            images=follower.images.hexdigest(),
            prepared_with=prepared_with(store),
            precision=recipe.precision,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            instructions=instructions(),
            machine=machine_name(CPU),
        )


def usual_steps(recipe: Recipe) -> int:
    """Fewer of larger views and batches: `PIXELS` in all."""
    return max(FEWEST, min(STEPS, PIXELS // (recipe.batch_size * recipe.size**2)))


class _Follower:
    """Notes each step's images and loss."""

    def __init__(self, run: Run, steps: int, line: Progress) -> None:
        self.run, self.steps, self.line = run, steps, line
        self.task = line.add_task("first steps", total=steps, metrics="")
        self.losses: list[float] = []
        self.images = hashlib.sha256()

    def begins(self, batch: Batch, draws: Draws | None) -> None:
        self.images.update(batch.images.numpy().tobytes())

    def ends(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        self.losses.append(step.metrics()["loss"].item())
        self.line.update(self.task, advance=1, metrics=f"loss {self.losses[-1]:.3f}")
        return self.run.step >= self.steps


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def instructions() -> str:
    """What torch and oneDNN choose their kernels by: the widest vectors, and instructions for bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    known = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    bfloat16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in known]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return " ".join([torch.backends.cpu.get_cpu_capability(), *bfloat16, *([f"oneDNN: {limit}"] if limit else [])])


def prepared_with(store: ImageStore) -> dict[str, str]:
    """The libraries that a store's bytes depend on, by its description."""
    plan: dict[str, Any] = json.loads((store.path / STORE).read_text())["plan"]
    return {key: value for key, value in plan.items() if key.startswith("version of ")}
