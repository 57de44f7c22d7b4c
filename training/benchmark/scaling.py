"""What a run takes on many GPUs: computing time from one GPU's measured rate, and the bytes that go over the wire."""

from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from ..networks import Encoder
from ..objectives.model_genesis import Restorer
from ..recipe import Recipe


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process receives in a step.

    Attributes:
        gradients: of the student, averaged by a ring: each process receives 2 (W - 1) / W of their size.
        images: the teacher's batches, clean and mixed, gathered for ShuffleBN from all other processes.
        keys: the teacher's features of them, gathered likewise.
    """

    gradients: int
    images: int
    keys: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.gradients + self.images + self.keys


def traffic(recipe: Recipe, processes: int) -> Traffic:
    """The bytes that each of so many processes receives in a step of a recipe."""
    objective = recipe.objective
    batches = bool({"clean", "feature"} & set(objective.terms)) + ("mixed" in objective.terms)
    if recipe.method != "c2l":
        batches = int(recipe.method == "moco")  # Model Genesis has no teacher
    others = batches * (recipe.batch_size - recipe.batch_size // processes)  # images of other processes
    value = 2 if recipe.precision == "bfloat16" else 4  # bytes of an image's or a key's number as it travels
    return Traffic(
        gradients=2 * 4 * parameters(recipe) * (processes - 1) // processes,
        images=others * recipe.size**2 * value * objective.shuffle_bn,
        keys=others * recipe.feature_dim * value,
    )


def parameters(recipe: Recipe) -> int:
    """How many numbers the student has."""
    with torch.device("meta"):
        student: nn.Module = Encoder(recipe.architecture, recipe.feature_dim, recipe.projection)
        if recipe.method == "model_genesis":
            student = Restorer(recipe.architecture)
    return sum(parameter.numel() for parameter in student.parameters())


@dataclass(frozen=True)
class Scaling:
    """A run's time on so many GPUs, were computing and sending never at the same time.

    Attributes:
        computing: hours, from one GPU's rate.
        sending: hours, from the bytes and the wire's rate.
    """

    processes: int
    batch_size: int
    steps: int
    step_traffic: Traffic
    computing: float
    sending: float


def scaling(
    recipe: Recipe, processes: int, images: int, images_per_second: float, gigabytes_per_second: float
) -> Scaling:
    """What a recipe takes for a corpus of so many images.

    Args:
        recipe: its batch size is that of all processes together.
        processes: W, one a GPU.
        images: of the corpus.
        images_per_second: what one GPU does in the recipe's steps; measure it with `c2l benchmark step`.
        gigabytes_per_second: what one GPU receives, 1e9 bytes.
    """
    steps = images // recipe.batch_size * recipe.epochs
    step_traffic = traffic(recipe, processes)
    computing = steps * recipe.batch_size / (images_per_second * processes) / 3600
    sending = steps * step_traffic.total / (gigabytes_per_second * 1e9) / 3600
    return Scaling(processes, recipe.batch_size, steps, step_traffic, computing, sending)


def table(rows: list[Scaling], title: str) -> Table:
    """The rows side by side."""
    shown = Table(title=title, caption="MB a step, received by each GPU: gradients + images + keys")
    for column in ("GPUs", "batch", "steps", "MB a step", "computing", "sending", "speed-up"):
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
