"""What the loop, the log, a probe and an export ask of a pretraining method."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..augment import Draws
from ..distributed import World
from ..recipe import Recipe


class Loss(Protocol):
    """A loss and what it is made of, as a named tuple."""

    @property
    def total(self) -> Tensor:
        """What is differentiated: a scalar."""


class MethodStep(Protocol):
    """What one forward pass gives."""

    @property
    def loss(self) -> Loss: ...

    def metrics(self) -> dict[str, Tensor]:
        """What is logged, scalars left on their device; "loss" is one of them."""


class Method(nn.Module):
    """Networks and state of a method, the same on every process.

    Attributes:
        student: the network that learns; its `backbone` [B, 1, S, S] -> [B, F] is what is probed and exported.
        networks: what `torch.compile` may compile.
    """

    student: Any
    networks: tuple[nn.Module, ...]

    def __init__(self, recipe: Recipe, world: World) -> None:
        super().__init__()
        self.recipe, self.world = recipe, world

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None) -> tuple[Tensor, ...]:
        """What `forward` takes, before the generator.

        Args:
            batch: uint8 [B, 1, S, S], this process's images.
            generator: on the batch's device, in the same state on every process.
            draws: the two views' augmentation, where it is not drawn anew.
        """
        raise NotImplementedError

    def after_step(self, step: Any) -> None:
        """What moves once the optimizer has moved the student; nothing by default."""

    def sound(self, metrics: Mapping[str, Tensor]) -> Tensor:
        """Whether each of some steps was one that a sane run can have, bool [steps], from what was logged of them."""
        return metrics["loss"].isfinite()

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")
