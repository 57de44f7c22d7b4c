"""Model Genesis (the paper's reference 13: Zhou et al., Models Genesis, MICCAI 2019; arXiv 1908.06912), on radiographs.

A network restores the original view from a corrupted copy; corruption.py defines the corruptions. The network is a
U-Net on our backbone; the authors' two-dimensional models have such an encoder, a ResNet-18. As in their published
code, the output is a sigmoid and the loss the squared error. Probes and exports take the backbone's pooled last map.
The decoder is only needed for training.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..augment import Draws
from ..distributed import ALONE, World
from ..recipe import Recipe
from .corruption import corrupted_and_original
from .method import HEALTH_PANEL, Column, Method, Panel, SingleLoss

WIDTHS = (128, 64, 32, 16, 16)
"""Channels of the decoder's maps, from 1/16 of the view's side up to the full side."""


class Step(NamedTuple):
    """The result of one forward pass.

    Attributes:
        loss: the loss of the restored views.
        unrestored: the loss of the corrupted views themselves, for comparison.
    """

    loss: SingleLoss
    unrestored: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """The logged metrics, left on their device. The log calls `unrestored` "given"."""
        return {"loss": self.loss.total, "given": self.unrestored}


class ModelGenesis(Method):
    """An encoder and a decoder. Only the views are random, and no state is kept between steps."""

    PANELS: ClassVar = (
        Panel("loss, mean over the batch", {"loss": "restored views", "given": "corrupted views, unrestored"}),
        HEALTH_PANEL,
    )

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """`generator`: not used; `world`: the processes."""
        super().__init__(recipe, world)
        self.student = Restorer(recipe.architecture)
        self.networks = (self.student,)

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None = None) -> tuple[Tensor, ...]:
        """Corrupted views, normalised, and original views, in [0, 1]. `draws` is not used."""
        return corrupted_and_original(batch, self.recipe, generator, self.world)

    def forward(self, corrupted: Tensor, original: Tensor, generator: torch.Generator) -> Step:
        """One step's loss: the squared error of intensities in [0, 1], the mean over this process's pixels and images.

        Ghost batch norm makes the loss independent of the number of processes.

        Args:
            corrupted: float [B, 1, S, S], normalised, of this process's images.
            original: float [B, 1, S, S], the same views before the corruption, intensities in [0, 1].
            generator: not used.
        """
        restored = self.run_student(corrupted).sigmoid()  # [B, 1, S, S]
        loss = SingleLoss(functional.mse_loss(restored, original))
        unrestored = corrupted * self.recipe.std + self.recipe.mean  # intensities in [0, 1]
        return Step(loss, functional.mse_loss(unrestored, original))

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """The original and the corrupted views."""
        corrupted, original = views
        return [
            Column("original view", "to be restored", original, [""] * len(original)),
            self.column("corrupted view", "for the network", corrupted),
        ]


class Restorer(nn.Module):
    """A one-channel backbone and a light U-Net decoder: [B, 1, S, S] -> logits [B, 1, S, S].

    Attributes:
        backbone: timm network, [B, 1, S, S] -> [B, F]; the decoder takes its maps at 1/2, 1/4, … 1/32 of the side.
        decoder: one `Up` per scale, from the coarsest.
        head: from the last map to the image.
    """

    def __init__(self, architecture: str) -> None:
        super().__init__()
        backbone: Any = timm.create_model(architecture, pretrained=False, in_chans=1, num_classes=0)
        self.backbone = backbone
        *skips, deepest = (level["num_chs"] for level in backbone.feature_info)
        coarse = (deepest, *WIDTHS)
        fine = (*reversed(skips), 0)  # the backbone has no map of the view's own side
        self.decoder = nn.ModuleList(map(Up, coarse, fine, WIDTHS))
        self.head = nn.Conv2d(WIDTHS[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        *skips, deepest = maps(self.backbone, x)
        for up, skip in zip(self.decoder, (*reversed(skips), x[:, :0]), strict=True):
            deepest = up(deepest, skip)
        return self.head(deepest)


def maps(backbone: Any, x: Tensor) -> list[Tensor]:
    """A timm network's feature maps of x at 1/2, 1/4, … 1/32 of the side, after the layers named in `feature_info`.

    The same as timm's `forward_intermediates`, which timm's DenseNet lacks before version 1.0.31.
    """
    ends = [level["module"].rpartition(".")[2] for level in backbone.feature_info]
    found: list[Tensor] = []
    for name, layer in getattr(backbone, "features", backbone).named_children():
        if len(found) < len(ends):  # after the last map only pooling and head follow
            x = layer(x)
            found += [x] if name in ends else []
    return found


class Up(nn.Module):
    """Enlarge a coarse map to a finer map's side, concatenate both, and mix them by a convolution."""

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        """`coarse`, `fine`, `width`: channels of the two maps and of the result."""
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(coarse + fine, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        enlarged = functional.interpolate(coarse, fine.shape[-2:], mode="nearest")
        return self.mix(torch.cat([enlarged, fine.to(enlarged.dtype)], dim=1))
