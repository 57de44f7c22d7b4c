"""The memory of a GPU, planned before a run: a step, and the store's images beside it if they fit."""

from dataclasses import dataclass

import torch

from .fake_step import StepMemory, TrainStep, step_memory
from .recipe import Recipe
from .store.image_store import ImageStore

RESERVE = 0.15
"""Share of a GPU's memory that the plan leaves free, for convolutions' workspace, CUDA itself and fragments."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one GPU.

    Attributes:
        step: the estimated peak of a step, without the store's images.
        images: the store's images.
        total: the GPU's memory.
    """

    step: StepMemory
    images: int
    total: int

    @property
    def usable(self) -> int:
        """The memory that the plan may use."""
        return int(self.total * (1 - RESERVE))

    @property
    def images_on_gpu(self) -> bool:
        """Whether the images fit beside a step. If not, they stay in host memory, and batches are read ahead."""
        return self.step.total + self.images <= self.usable

    def __str__(self) -> str:
        where = "are copied to it" if self.images_on_gpu else "stay in host memory and are read ahead"
        text = (
            f"memory: the GPU has {self.total / 1e9:.1f} GB; a step takes about {self.step}; the store's images, "
            f"{self.images / 1e9:.2f} GB, {where}"
        )
        if self.step.total > self.usable:
            text += (
                ". The step may not fit: set --recipe.gradient-checkpointing, --recipe.precision bfloat16 or a smaller "
                "--recipe.batch-size, or use several GPUs"
            )
        return text


def plan_memory(
    recipe: Recipe, store: ImageStore, train_step: TrainStep, device: torch.device, processes: int = 1
) -> MemoryPlan | None:
    """Plan the memory of each process's GPU; arguments as in `step_memory`.

    None: on a CPU, which maps the store, and if a step cannot be estimated.
    """
    if device.type != "cuda" or (step := step_memory(recipe, train_step, processes)) is None:
        return None
    return MemoryPlan(step, store.images.nbytes, torch.cuda.get_device_properties(device).total_memory)
