"""MoCo v1 (the paper's reference 4: He et al., arXiv 1911.05722, Algorithm 1): C2L's first contrast alone.

Augmentation, projection, temperature, queue and optimizer are C2L's unless the recipe sets them. Per epoch, half as
many batches as in C2L go through each network.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .contrastive import PANELS, Contrastive, Step, contrast, contrast_top1
from .method import Panel, SingleLoss


class MoCo(Contrastive):
    """One contrast: the student's query, the teacher's key, and the past keys in the queue."""

    CONTRASTS: ClassVar = {"loss": 1}
    PANELS: ClassVar = (Panel("loss, mean over the batch", {"loss": "loss"}), *PANELS)

    def forward(self, x_q: Tensor, x_k: Tensor, generator: torch.Generator) -> Step:
        """One step's loss: InfoNCE, the mean over the batch.

        Args:
            x_q: float [B, 1, S, S], the student's view of this process's images.
            x_k: float [B, 1, S, S], the teacher's view of the same images.
            generator: for ShuffleBN; in the same state on every process.
        """
        q = functional.normalize(self.student_features(x_q), dim=1)  # [B, D]
        k = functional.normalize(self.teacher_features(x_k, generator), dim=1)  # [W B, D], without gradient
        own, queue = self.world.block(k), self.queue.keys  # [B, D] and [N, D]
        loss = contrast(q, own, q @ queue.T, self.recipe.temperature)
        return Step(SingleLoss(loss), (k,), contrast_top1(q, own, queue), q.detach())
