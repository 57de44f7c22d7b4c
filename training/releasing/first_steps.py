"""Losses of a recipe's first training steps on one CPU thread: a cheap fingerprint of recipe, seed and images.

A release stores them; `c2l reproduce release NAME --check` computes them again.
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

from c2l_models.progress import Stage, stage

from ..augment import Draws
from ..batches import Batch, training_rows
from ..distributed import ALONE
from ..objectives.method import MethodStep
from ..pretrain import share_batch, train
from ..processor import instructions
from ..recipe import Recipe
from ..run import Run
from ..run_files.run_folder import machine_name
from ..store.image_store import ImageStore
from ..store.store_format import DESCRIPTION

MAX_STEPS, MIN_STEPS = 24, 2
PIXELS = MAX_STEPS * 64 * 64**2
"""Pixels of one view of all steps' images. 24 steps of 64 images of 64 × 64 pixels take ResNet-18 half a minute on one
core."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FirstSteps:
    """Losses of a recipe's first steps, and everything that their last bits depend on.

    Attributes:
        losses: of each step, float32 values.
        images: sha256 of the bytes of all steps' images, in order.
        prepared_with: versions of the libraries that decoded the store's films and wrote its index.
        precision: the recipe's.
        threads: number of CPU threads.
        torch: version of torch.
        instructions: see `processor.instructions`.
        machine: name of the processor.
    """

    losses: tuple[float, ...]
    images: str
    prepared_with: Mapping[str, str]
    precision: str
    threads: int
    torch: str
    instructions: str
    machine: str

    def same_machine(self, other: "FirstSteps") -> bool:
        """Whether torch, instruction set, thread count and processor match."""
        return all(getattr(self, key) == getattr(other, key) for key in ("torch", "instructions", "threads", "machine"))


def first_steps(recipe: Recipe, store: ImageStore, steps: int | None = None, progress: bool = True) -> FirstSteps:
    """Run a recipe's first steps as `pretrain` does, and return their losses. No folder is written.

    The steps always run on one CPU thread, so that two machines can be compared. A run on several threads or a GPU has
    losses that differ in the last digits, and more so in later steps. `torch.compile` is not used. The recipe's
    precision is kept; a processor without bfloat16 instructions computes bfloat16 in float32.

    Args:
        recipe: the recipe to run.
        store: the images.
        steps: number of steps; None: `usual_steps`. A recipe with fewer steps is run to its end.
        progress: show a progress line.

    Raises:
        DatasetError: fewer images than one batch, or a source of the recipe is not in the store.
    """
    recipe = share_batch(replace(recipe, compile=False), ALONE)
    with one_thread():
        run = Run(recipe, store, training_rows(recipe, store), Path(os.devnull), ALONE, CPU)
        run.initialize()
        count = min(usual_steps(recipe) if steps is None else steps, run.schedule.total_steps)
        with stage("first steps", count, "steps", progress) as line:
            recorder = _Recorder(run, count, line)
            train(run, recorder)
        return FirstSteps(
            losses=tuple(recorder.losses),
            images=recorder.images.hexdigest(),
            prepared_with=prepared_with(store),
            precision=recipe.precision,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            instructions=instructions(),
            machine=machine_name(CPU),
        )


def usual_steps(recipe: Recipe) -> int:
    """Number of steps that keeps all views within `PIXELS`, between 2 and 24."""
    return max(MIN_STEPS, min(MAX_STEPS, PIXELS // (recipe.batch_size * recipe.size**2)))


class _Recorder:
    """Records each step's images and loss."""

    def __init__(self, run: Run, steps: int, line: Stage) -> None:
        self.run, self.steps, self.line = run, steps, line
        self.losses: list[float] = []
        self.images = hashlib.sha256()

    def before_step(self, batch: Batch, draws: Draws | None) -> None:
        self.images.update(batch.images.numpy().tobytes())

    def after_step(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        self.losses.append(step.metrics()["loss"].item())
        self.line.advance()
        self.line.note(f"loss {self.losses[-1]:.3f}")
        return self.run.step >= self.steps


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch uses one CPU thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepared_with(store: ImageStore) -> dict[str, str]:
    """Versions of the libraries that a store's bytes depend on, from its description."""
    plan: dict[str, Any] = json.loads((store.path / DESCRIPTION).read_text(encoding="utf-8"))["plan"]
    return {key: value for key, value in plan.items() if key.startswith("version of ")}
