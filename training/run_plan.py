"""Plan a run before it begins: its steps and schedule, and time and memory measured over a few steps."""

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from c2l_models.errors import RecipeError, RunError

from .batches import batches, training_rows
from .distributed import ALONE
from .evaluation.plotting import new_figure, save_png, style_axes
from .pretrain import train_step
from .recipe import Recipe
from .run import Run
from .schedule import Schedule
from .store.image_store import ImageStore

UNTIMED, TIMED = 2, 6
"""Steps before the measurement, and steps that are timed."""
MARGIN = 0.05
"""Share of the given time that `fit_steps` leaves for checkpoints, probes and a slower machine."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        recipe: the run's recipe.
        images: number of images to train on.
        seconds_per_step: median duration of a step on this machine.
        memory: peak memory in bytes: allocated on the GPU, or of this process on a CPU; None: unknown.
        device: the kind of device.
    """

    recipe: Recipe
    images: int
    seconds_per_step: float
    memory: int | None
    device: str

    @property
    def schedule(self) -> Schedule:
        """Steps, learning rate and teacher momentum."""
        return Schedule(self.recipe, self.images)

    @property
    def hours(self) -> float:
        """Duration of all steps, without probes and checkpoints."""
        return self.schedule.total_steps * self.seconds_per_step / 3600

    def lines(self) -> list[str]:
        """The plan in words."""
        recipe, schedule = self.recipe, self.schedule
        steps = schedule.total_steps
        epochs = steps / schedule.steps_per_epoch
        rate = recipe.batch_size / self.seconds_per_step
        of_the_queue = recipe.queue_length / self.images
        return [
            f"images          {self.images:,}, of which a step takes {recipe.batch_size}, {recipe.size} pixels",
            f"steps           {steps:,} ({epochs:.1f} epochs), {schedule.warmup_steps:,} of them warm-up",
            f"learning rate   {max(map(schedule.learning_rate, range(steps))):.3g} per step at most",
            f"initialization  {recipe.initialization}",
            f"queue           {recipe.queue_length:,} features, {of_the_queue:.2f} per image",
            f"rate            {rate:,.1f} images/s on this {self.device}",
            f"duration        {self.hours:.2f} hours, without probes and checkpoints",
            f"peak memory     {'unknown' if self.memory is None else f'{self.memory / 1e9:.1f} GB'}",
        ]

    def draw(self, path: Path) -> Path:
        """Write a plot of learning rate and teacher momentum over the steps as PNG. Returns its path."""
        schedule = self.schedule
        steps = range(0, schedule.total_steps, max(1, schedule.total_steps // 2000))
        figure = new_figure(10, 3)
        curves = {
            "learning rate": schedule.learning_rate,
            "momentum of the teacher": schedule.teacher_momentum,
        }
        for axis, (title, value) in zip(figure.subplots(1, 2), curves.items(), strict=True):
            axis.plot([step * self.seconds_per_step / 3600 for step in steps], [value(step) for step in steps])
            axis.set_xlabel("hours")
            style_axes(axis, title, grid="both")
        save_png(figure, path)
        return path


def plan_run(recipe: Recipe, store: ImageStore, device: torch.device) -> RunPlan:
    """Run a few steps of a recipe in one process, without a run folder, and plan the whole run.

    Raises:
        DatasetError: the store has no image of a source, or the images do not fill one batch.
    """
    rows = training_rows(recipe, store)
    run = Run(recipe, store, rows, Path(), ALONE, device)
    durations = []
    for batch in islice(batches(store, rows, recipe, device), UNTIMED + TIMED):
        began = time.perf_counter()
        run.apply_schedule()
        step = train_step(run.model, run.optimizer, batch.images, run.seeded(run.step))
        step.metrics()["loss"].item()  # waits for the device
        durations.append(time.perf_counter() - began)
        run.step += 1
    timed = sorted(durations[UNTIMED:])
    return RunPlan(recipe, len(rows), timed[len(timed) // 2], peak_memory(device), device.type)


def fit_steps(
    recipe: Recipe, store: ImageStore, device: torch.device, seconds: float, resumed: Path | None = None
) -> Recipe:
    """The recipe with the number of steps that fits into a time on this machine, measured over a few steps.

    Warm-up and cosine then end in time. The number is part of the recipe, so a resumed run keeps it.

    Args:
        recipe: with the "cosine" schedule; the milestones of "steps" are numbers of epochs, which would not fit.
        store: the images.
        device: the run's device.
        seconds: the run's duration. A share `MARGIN` of it is left free, and the measurement counts.
        resumed: the folder of a run to resume, which keeps its number of steps.

    Raises:
        RunError: this is one of several processes.
        RecipeError: the recipe has another schedule, or not even one step fits.
    """
    if recipe.optimizer.schedule != "cosine":
        raise RecipeError(
            "optimizer.schedule: expected 'cosine' for a run of a given duration, found "
            f"{recipe.optimizer.schedule!r}; set --recipe.optimizer.schedule cosine, or give --recipe.steps"
        )
    if resumed and (resumed / "recipe.json").is_file():
        return replace(recipe, steps=json.loads((resumed / "recipe.json").read_text())["steps"])
    if "WORLD_SIZE" in os.environ:
        raise RunError(
            "expected one process to measure how many steps fit, found a job of torchrun; measure the job's rate with "
            "`c2l benchmark step`, and give --recipe.steps"
        )
    began = time.monotonic()
    plan = plan_run(recipe, store, device)
    left = seconds * (1 - MARGIN) - (time.monotonic() - began)
    steps = int(left / plan.seconds_per_step)
    if steps < 1:
        raise RecipeError(
            f"expected time for one step or more, found {seconds:g} s; {max(left, 0):.1f} s are left after the "
            f"measurement, and a step takes {plan.seconds_per_step:.1f} s; give more time"
        )
    return replace(recipe, steps=steps)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory so far, bytes: allocated by torch on a GPU, or of this process. None: Windows does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
