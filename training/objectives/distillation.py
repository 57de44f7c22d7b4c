"""Distillation: a network learns the features of a frozen one, which may have another architecture.

Both see the same augmented view. The loss is the squared error between a linear map of the student's features and the
source's features, standardised per dimension.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..augment import Draws, two_views
from ..distributed import ALONE, World
from ..networks import Encoder, autocast
from ..recipe import Recipe
from .method import HEALTH_PANEL, Column, Method, Panel, SingleLoss

CONSTANT = 1e-2
"""A feature of the source whose spread is below this share of the mean spread counts as constant."""


class Step(NamedTuple):
    """The result of one forward pass."""

    loss: SingleLoss

    def metrics(self) -> dict[str, Tensor]:
        """The logged metrics, left on their device."""
        return {"loss": self.loss.total}


class Distillation(Method):
    """A student with a linear map to the source's features.

    Attributes:
        target_mean, target_std: float32 [D], of the source's features on augmented training images.
    """

    PANELS: ClassVar = (
        Panel("loss, mean over the batch", {"loss": "squared error (1: the mean feature)"}),
        HEALTH_PANEL,
    )
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """`generator`: not used; `world`: the processes. `set_source` must be called before the first step."""
        super().__init__(recipe, world)
        self.student = Encoder(recipe.architecture, recipe.feature_dim)
        self.networks = (self.student,)
        self.register_buffer("target_mean", torch.zeros(recipe.feature_dim))
        self.register_buffer("target_std", torch.ones(recipe.feature_dim))
        self._source: tuple[nn.Module, ...] = ()  # a tuple, so that no checkpoint holds the source's weights

    def set_source(self, network: nn.Module) -> None:
        """Set the frozen network, [B, 1, S, S] -> [B, D] with D the recipe's `feature_dim`, on the run's device."""
        self._source = (network.eval().requires_grad_(False),)

    def set_targets(self, features: Tensor) -> None:
        """Standardise by the source's features of augmented training images, [N, D].

        The target of a feature that hardly varies is 0, because its few values would dominate the loss.
        """
        std = features.std(dim=0)
        self.target_mean.copy_(features.mean(dim=0))
        self.target_std.copy_(torch.where(std > CONSTANT * std.mean(), std, torch.inf))

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None) -> tuple[Tensor, ...]:
        """One augmented view, float32 [B, 1, S, S]."""
        return two_views(batch, self.recipe, generator, self.world, draws)[:1]

    def forward(self, x: Tensor, generator: torch.Generator) -> Step:
        """One step's loss: the mean squared error over images and dimensions. 1: no better than the mean feature.

        Args:
            x: float [B, 1, S, S], the view of this process's images.
            generator: not used.
        """
        (source,) = self._source
        with torch.no_grad(), autocast(x.device, self.recipe.precision):
            target = source(x).float()
        standardised = (target - self.target_mean) / self.target_std
        return Step(SingleLoss(functional.mse_loss(self.run_student(x), standardised)))

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """The view."""
        return [self.column("view", "for both networks", views[0])]
