"""Plan a run before it begins: its steps and schedule, and time and memory measured over a few steps."""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from c2l_models.errors import RecipeError, RunError

from .batches import batches, training_rows
from .distributed import ALONE
from .evaluation.plotting import PALETTE, new_figure, save_png, style_axes
from .fake_step import step_memory
from .pretrain import train_step
from .processor import slow_precision
from .recipe import Recipe
from .run import Run
from .run_files.run_folder import RECIPE, read_recipe
from .schedule import Schedule
from .store.image_store import ImageStore

UNTIMED, TIMED = 2, 6
"""Steps before the measurement, and steps that are timed."""
MARGIN = 0.05
"""Share of the given time that `fit_steps` leaves for checkpoints, probes and a slower machine."""


@dataclass(frozen=True)
class RunPlan:
    """Steps, time and memory of a run.

    Attributes:
        recipe: the run's recipe.
        images: number of images to train on.
        seconds_per_step: median duration of a step on this machine, by the side of its views in pixels.
        memory: peak memory in bytes: allocated on the GPU, or of this process on a CPU; None: unknown.
        device: the kind of device.
    """

    recipe: Recipe
    images: int
    seconds_per_step: Mapping[int, float]
    memory: int | None
    device: str

    @property
    def schedule(self) -> Schedule:
        """Steps, learning rate and teacher momentum."""
        return Schedule(self.recipe, self.images)

    @property
    def hours(self) -> float:
        """Duration of all steps, without probes and checkpoints."""
        return self.schedule.total_steps * self.mean_seconds / 3600

    @property
    def mean_seconds(self) -> float:
        """Mean duration of a step over the phases of the run."""
        schedule = self.schedule
        ends = [*(first for first, _ in schedule.phases()[1:]), schedule.total_steps]
        phases = zip(schedule.phases(), ends, strict=True)
        seconds = sum((end - first) * self.seconds_per_step[size] for (first, size), end in phases)
        return seconds / schedule.total_steps

    def lines(self) -> list[str]:
        """The plan in words."""
        recipe, schedule = self.recipe, self.schedule
        steps = schedule.total_steps
        epochs = steps / schedule.steps_per_epoch
        rates = {size: recipe.batch_size / seconds for size, seconds in self.seconds_per_step.items()}
        sizes = ", then ".join(f"{size} px from step {first:,}" for first, size in schedule.phases())
        slow = slow_precision(recipe.precision, torch.device(self.device))
        of_the_queue = recipe.queue_length / self.images
        return [
            f"images          {self.images:,}, of which a step takes {recipe.batch_size}",
            f"views           {sizes}",
            f"steps           {steps:,} ({epochs:.1f} epochs), {schedule.warmup_steps:,} of them warm-up",
            f"learning rate   {max(map(schedule.learning_rate, range(steps))):.3g} per step at most",
            f"initialization  {recipe.initialization}",
            f"queue           {recipe.queue_length:,} features, {of_the_queue:.2f} per image",
            f"rate            {', '.join(f'{rate:,.1f} images/s at {size} px' for size, rate in rates.items())}",
            f"device          {self.device}",
            f"precision       {'; '.join(filter(None, [recipe.precision, slow]))}",
            f"duration        {self.hours:.2f} hours, without probes and checkpoints",
            f"peak memory     {'unknown' if self.memory is None else f'{self.memory / 1e9:.1f} GB'}",
            f"a step's part   {step_memory(recipe, train_step) or 'unknown'}, estimated",
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
            axis.plot(steps, [value(step) for step in steps], color=PALETTE[1], drawstyle="steps-post")
            axis.set_xlabel("step")
            # Not the range of the values, in which a constant would look arbitrary and a momentum above 1 possible.
            low, high = axis.get_ylim()
            axis.set_ylim(*((min(low, 0.9), 1.0) if "momentum" in title else (0, high)))
            style_axes(axis, title, grid="both")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, path)
        return path


def plan_run(recipe: Recipe, store: ImageStore, device: torch.device) -> RunPlan:
    """Run a few steps of each phase in one process, without a run folder, and plan the whole run.

    Raises:
        DatasetError: the store has no image of a source, or the images do not fill one batch.
        RecipeError: the network that a distillation learns from does not fit the recipe.
    """
    rows = training_rows(recipe, store)
    sizes = {size for _, size in Schedule(recipe, len(rows)).phases()}
    seconds = {size: _seconds_per_step(recipe, size, store, rows, device) for size in sorted(sizes)}
    return RunPlan(recipe, len(rows), seconds, peak_memory(device), device.type)


def _seconds_per_step(recipe: Recipe, size: int, store: ImageStore, rows: np.ndarray, device: torch.device) -> float:
    """Median duration of a step with views of this size."""
    run = Run(replace(recipe, size=size, early_sizes=(), early_shares=()), store, rows, Path(), ALONE, device)
    run.load_source()
    durations = []
    for batch in islice(batches(store, rows, recipe, device), UNTIMED + TIMED):
        began = time.perf_counter()
        run.apply_schedule()
        step = train_step(run.model, run.optimizer, batch.images, run.seeded(run.step))
        step.metrics()["loss"].item()  # waits for the device
        durations.append(time.perf_counter() - began)
        run.step += 1
    return median(durations[UNTIMED:])


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
    if resumed and (resumed / RECIPE).is_file():
        return replace(recipe, steps=read_recipe(resumed)["steps"])
    if "WORLD_SIZE" in os.environ:
        raise RunError(
            "expected one process to measure how many steps fit, found a job of torchrun; measure the job's rate with "
            "`c2l benchmark step`, and give --recipe.steps"
        )
    began = time.monotonic()
    plan = plan_run(recipe, store, device)
    left = seconds * (1 - MARGIN) - (time.monotonic() - began)
    steps = int(left / plan.mean_seconds)
    if steps < 1:
        raise RecipeError(
            f"expected time for one step or more, found {seconds:g} s; {max(left, 0):.1f} s are left after the "
            f"measurement, and a step takes {plan.mean_seconds:.1f} s; give more time"
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
