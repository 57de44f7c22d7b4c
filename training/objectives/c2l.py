"""C2L, "Comparing to Learn": Algorithm 1, lines 2 and 7 to 15, line by line.

Lines 1, 3, 5, 17 and 18 are what it shares with MoCo: contrastive.py.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .. import mixup
from .contrastive import Contrastive, Step, contrast, contrast_top1

__all__ = ["C2L", "C2LLoss", "c2l_loss"]


class C2LLoss(NamedTuple):
    """total = (loss_a + loss_m) / 3; each a scalar, a mean over the batch."""

    total: Tensor
    loss_a: Tensor
    loss_m: Tensor


class C2L(Contrastive):
    """Three contrasts: of the clean views, of the mixed views, and of the mixed view with the mixed features."""

    CONTRASTS: ClassVar = {"loss_a": 1, "loss_m": 2}

    def forward(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> Step:
        """Lines 2 and 7 to 15 for two augmented batches.

        Args:
            x1_a: float [B, 1, S, S], the student's view of this process's images.
            x2_a: float [B, 1, S, S], the teacher's view of them.
            generator: for mixup and for ShuffleBN; in the same state on every process.
        """
        world = self.world
        m = self.draw_mix(len(x1_a), generator)
        own = m.block(world)
        x1_m, x2_m = mixup.mix(x1_a, own), mixup.mix(x2_a, own)  # line 2

        v1_a, v1_m = self.queries(torch.cat([x1_a, x1_m])).chunk(2)  # line 7, in one pass
        v2_a, v2_m = self.keys(x2_a, generator), self.keys(x2_m, generator)  # line 8, of every process's images
        v_m = mixup.mix(v2_a, m)

        v1_a, v1_m, v2_a, v2_m, v_m = (functional.normalize(v, dim=1) for v in (v1_a, v1_m, v2_a, v2_m, v_m))
        queue = self.queue.keys
        own_a, own_m, own_mix = (world.block(v) for v in (v2_a, v2_m, v_m))
        loss = c2l_loss(v1_a, v1_m, own_a, own_m, own_mix, queue, self.recipe.temperature)  # lines 9 to 15
        return Step(loss, (v2_a, v2_m, v_m), contrast_top1(v1_a, own_a, queue))

    def draw_mix(self, batch_size: int, generator: torch.Generator) -> mixup.Mix:
        """λ and π for all processes' images, B = `batch_size` on each; no image is paired with another process's."""
        recipe, size = self.recipe, self.world.size
        return mixup.draw(batch_size * size, recipe.mixup_alpha, generator, recipe.mixup_blocks)


def c2l_loss(
    v1_a: Tensor, v1_m: Tensor, v2_a: Tensor, v2_m: Tensor, v_m: Tensor, queue: Tensor, temperature: float
) -> C2LLoss:
    """The three contrasts of Algorithm 1, lines 9 to 15 (equations 3 and 4).

    Args:
        v1_a, v1_m: unit vectors [B, D] from the student.
        v2_a, v2_m, v_m: unit vectors [B, D] from the teacher; v_m is mixup(v2_a).
        queue: unit vectors [N, D].
        temperature: divides every inner product; the paper does not print it.

    Returns:
        Means over the batch. The paper sums over the batch and the three terms; a sum would multiply the learning
        rate by 3 B.
    """
    loss_a = contrast(v1_a, v2_a, v1_a @ queue.T, temperature)  # line 12
    past = v1_m @ queue.T  # shared by both terms of line 13
    loss_m = contrast(v1_m, v2_m, past, temperature) + contrast(v1_m, v_m, past, temperature)
    return C2LLoss((loss_a + loss_m) / 3, loss_a, loss_m)
