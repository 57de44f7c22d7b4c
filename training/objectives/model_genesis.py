"""Model Genesis (the paper's reference 13: Zhou et al., Models Genesis, MICCAI 2019; arXiv 1908.06912), on radiographs.

A network restores a view from its spoilt copy (restoration.py says what is spoilt), and learns what films look like.
The method's own two-dimensional models have an encoder of this kind, a ResNet-18, in a U-Net; the loss is the squared
error, the output a sigmoid, as in the published code. The encoder's last map, pooled, is what is probed; the decoder
ends with the run.
"""

from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..augment import Draws
from ..distributed import ALONE, World
from ..networks import in_groups
from ..recipe import Recipe
from .method import Method
from .restoration import spoilt_and_whole

WIDTHS = (128, 64, 32, 16, 16)
"""Channels of the decoder's maps, from 1/16 of the view's side up to all of it."""


class RestorationLoss(NamedTuple):
    """The squared error of intensities in [0, 1], a scalar: the mean over this process's pixels and images."""

    total: Tensor


class Step(NamedTuple):
    """What one forward pass gives: the loss, and what it would be if the spoilt views were given back as they are."""

    loss: RestorationLoss
    given: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """What is logged, left on its device."""
        return {"loss": self.loss.total, "given": self.given}


class ModelGenesis(Method):
    """An encoder and a decoder; nothing is random but the views, and nothing is carried from step to step."""

    def __init__(self, recipe: Recipe, world: World = ALONE) -> None:
        """`world`: the processes."""
        super().__init__(recipe, world)
        self.student = Restorer(recipe.architecture)
        self.networks = (self.student,)

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None = None) -> tuple[Tensor, ...]:
        """Spoilt views, normalised, and whole ones, in [0, 1]; no recipe of this method draws views beforehand."""
        return spoilt_and_whole(batch, self.recipe, generator, self.world)

    def forward(self, spoilt: Tensor, whole: Tensor, generator: torch.Generator) -> Step:
        """One step's loss.

        Batch statistics are taken in the recipe's groups, so that they do not depend on the number of processes.

        Args:
            spoilt: float [B, 1, S, S], normalised, of this process's images.
            whole: float [B, 1, S, S], the same views before they were spoilt, intensities in [0, 1].
            generator: not used.
        """
        with self._autocast(spoilt):
            group, checkpointed = self.recipe.batch_norm_group, self.recipe.gradient_checkpointing
            logits = in_groups(self.student, spoilt, group, checkpointed)
        restored = logits.float().sigmoid()
        given = spoilt * self.recipe.std + self.recipe.mean
        return Step(RestorationLoss(functional.mse_loss(restored, whole)), functional.mse_loss(given, whole))


class Restorer(nn.Module):
    """A one-channel backbone and a light U-Net decoder on its maps: [B, 1, S, S] -> logits [B, 1, S, S].

    Attributes:
        backbone: timm network, [B, 1, S, S] -> [B, F]; the decoder takes its maps at 1/2, 1/4, … 1/32 of the side.
        decoder: one `Up` a scale, from the coarsest.
        head: from the last map to the image.
    """

    def __init__(self, architecture: str) -> None:
        super().__init__()
        backbone: Any = timm.create_model(architecture, pretrained=False, in_chans=1, num_classes=0)
        self.backbone = backbone
        *skips, deepest = (level["num_chs"] for level in backbone.feature_info)
        widths = (deepest, *WIDTHS)
        sides = (*reversed(skips), 0)  # nothing of the backbone has the view's own side
        self.decoder = nn.ModuleList(map(Up, widths, sides, WIDTHS))
        self.head = nn.Conv2d(WIDTHS[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        *skips, deepest = maps(self.backbone, x)
        for up, skip in zip(self.decoder, (*reversed(skips), x[:, :0]), strict=True):
            deepest = up(deepest, skip)
        return self.head(deepest)


def maps(backbone: Any, x: Tensor) -> list[Tensor]:
    """A timm network's maps of x at 1/2, 1/4, … 1/32 of its side, where `feature_info` says that they end.

    As timm's `forward_intermediates`, which its DenseNet has from 1.0.31 on.
    """
    ends = [level["module"].rpartition(".")[2] for level in backbone.feature_info]
    found: list[Tensor] = []
    for name, layer in getattr(backbone, "features", backbone).named_children():
        if len(found) < len(ends):  # behind the last map: pooling and head
            x = layer(x)
            found += [x] if name in ends else []
    return found


class Up(nn.Module):
    """Enlarge a map to a finer one's side, join the two, and mix them by a convolution."""

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        """Channels of the two maps, and of the result."""
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(coarse + fine, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        enlarged = functional.interpolate(coarse, fine.shape[-2:], mode="nearest")
        return self.mix(torch.cat([enlarged, fine.to(enlarged.dtype)], dim=1))
