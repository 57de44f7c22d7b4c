"""MoCo v1 (the paper's reference 4: He et al., arXiv 1911.05722, Algorithm 1): C2L's first contrast alone.

Everything around it is this pipeline's, and so is every value that the recipe does not set otherwise: augmentation,
projection, temperature, queue. An epoch passes half as many batches through each network as C2L's.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .contrastive import Contrastive, Step, contrast, contrast_top1


class MoCoLoss(NamedTuple):
    """InfoNCE, a scalar: the mean over the batch."""

    total: Tensor


class MoCo(Contrastive):
    """One contrast: a query of the student, its key of the teacher, and the past keys in the queue."""

    CONTRASTS: ClassVar = {"loss": 1}

    def forward(self, x_q: Tensor, x_k: Tensor, generator: torch.Generator) -> Step:
        """One step's loss.

        Args:
            x_q: float [B, 1, S, S], the student's view of this process's images.
            x_k: float [B, 1, S, S], the teacher's view of them.
            generator: for ShuffleBN; in the same state on every process.
        """
        q = functional.normalize(self.queries(x_q), dim=1)  # [B, D]
        k = functional.normalize(self.keys(x_k, generator), dim=1)  # [W B, D], without gradient
        own, queue = self.world.block(k), self.queue.keys
        loss = contrast(q, own, q @ queue.T, self.recipe.temperature)
        return Step(MoCoLoss(loss), (k,), contrast_top1(q, own, queue))
