"""`c2l benchmark scaling`: estimate the hours of a run on many GPUs from one GPU's rate and the network's rate."""

from dataclasses import dataclass

import torch
from rich.table import Table

from ..fake_step import StepMemory, fake_step, step_memory
from ..objectives import build
from ..objectives.method import Method
from ..pretrain import train_step
from ..recipe import Recipe
from ..schedule import Schedule
from .roofline import Cost, count_cost


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process receives per step.

    Attributes:
        gradients: the student's gradients; averaging them in a ring of W processes sends 2 (W - 1) / W of their size
            to each process.
        images: the teacher's batches, clean and mixed, from all other processes, gathered for ShuffleBN.
        keys: the teacher's features of these batches, gathered in the same way.
    """

    gradients: int
    images: int
    keys: int

    @property
    def total(self) -> int:
        """Gradients, images and keys together."""
        return self.gradients + self.images + self.keys


def traffic(recipe: Recipe, processes: int) -> Traffic:
    """The bytes that each process receives per step of a recipe."""
    others = recipe.batch_size - recipe.batch_size // processes  # images of the other processes
    others *= _method(recipe).teacher_batches
    value_bytes = 2 if recipe.precision == "bfloat16" else 4  # images and keys
    return Traffic(
        gradients=2 * 4 * count_parameters(recipe) * (processes - 1) // processes,
        images=others * recipe.size**2 * value_bytes * recipe.objective.shuffle_bn,
        keys=others * recipe.feature_dim * value_bytes,
    )


def count_parameters(recipe: Recipe) -> int:
    """Number of the student's parameters."""
    return sum(parameter.numel() for parameter in _method(recipe).student.parameters())


def _method(recipe: Recipe) -> Method:
    """The recipe's method without values, so that it takes no memory."""
    with torch.device("meta"):
        return build(recipe)


def counted_step(recipe: Recipe, processes: int) -> tuple[Cost, StepMemory | None]:
    """FLOPs, bytes and peak memory of one process's step, counted without values, as the CPU would compute it."""
    with fake_step(recipe, train_step, processes) as (_, _, step):
        step()  # creates the optimizer's state
        cost = count_cost(step)
    return cost, step_memory(recipe, train_step, processes)


@dataclass(frozen=True)
class Scaling:
    """Estimated time of a run, if computing and communication never overlap.

    Attributes:
        processes: number of GPUs.
        batch_size: images per step of all processes together.
        steps: number of steps of the whole run.
        step_traffic: bytes that each process receives per step.
        computing: hours of computing, from one GPU's rate.
        sending: hours of communication, from the bytes and the network's rate.
    """

    processes: int
    batch_size: int
    steps: int
    step_traffic: Traffic
    computing: float
    sending: float


def estimate_scaling(
    recipe: Recipe, processes: int, images: int, images_per_second: float, gigabytes_per_second: float
) -> Scaling:
    """Estimate the time of a run.

    Args:
        recipe: its batch size counts the images of all processes together.
        processes: W, one per GPU.
        images: number of images of the corpus.
        images_per_second: rate of one GPU in steps of the recipe; measure it with `c2l benchmark step`.
        gigabytes_per_second: rate at which one GPU receives data, in 1e9 bytes per second.
    """
    steps = Schedule(recipe, images).total_steps
    step_traffic = traffic(recipe, processes)
    computing = steps * recipe.batch_size / (images_per_second * processes) / 3600
    sending = steps * step_traffic.total / (gigabytes_per_second * 1e9) / 3600
    return Scaling(processes, recipe.batch_size, steps, step_traffic, computing, sending)


def table(rows: list[Scaling], title: str) -> Table:
    """A table of the estimates for the terminal."""
    shown = Table(title=title, caption="MB per step: received by each GPU, gradients + images + keys")
    for column in ("GPUs", "batch", "steps", "MB per step", "computing", "sending", "speed-up"):
        shown.add_column(column, justify="right")
    for row in rows:
        received = row.step_traffic
        alone = row.computing * row.processes
        shown.add_row(
            *(f"{number:,}" for number in (row.processes, row.batch_size, row.steps)),
            " + ".join(f"{part / 1e6:.0f}" for part in (received.gradients, received.images, received.keys)),
            *(f"{hours:.1f} h" for hours in (row.computing, row.sending)),
            f"{alone / (row.computing + row.sending):.1f}",
        )
    return shown
