"""Contrast with a memory queue, for C2L and MoCo: Algorithm 1, lines 5, 11 to 13 (one cross entropy) and 18."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..distributed import ALONE, World
from ..memory_queue import MemoryQueue
from ..recipe import Recipe
from .health import alignment, effective_rank, uniformity
from .method import Panel
from .momentum_teacher import TEACHER_PANELS, MomentumTeacher

PANELS = (
    Panel("contrast", {"top1": "top-1 of the contrast", "spread": "feature spread (1: even)"}, limits=(0, 1.05)),
    Panel("alignment and uniformity", {"alignment": "alignment (0: best)", "uniformity": "uniformity (lower: better)"}),
    Panel("effective rank of the features", {"effective_rank": "effective rank"}),
    *TEACHER_PANELS,
)
"""The plots of a contrast with a queue, after those of the losses."""


class Step(NamedTuple):
    """The result of one forward pass.

    Attributes:
        loss: the loss of this process's images, a named tuple whose first field is `total`.
        keys: the features that enter Q at line 18, each float32 [W B, D], from all processes' images.
        top1: share of this process's images whose student feature is nearer to the teacher's than to any row of Q.
        queries: the student's features of this process's images, float32 [B, D], for the first of `keys`; no gradient.
    """

    loss: Any
    keys: tuple[Tensor, ...]
    top1: Tensor
    queries: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """The logged metrics, left on their device.

        "spread" is 0 if all features are equal, and 1 if they are spread evenly over the sphere.
        """
        keys, parts = self.keys[0], self.loss._asdict()
        spread = keys.std(dim=0).mean() * keys.shape[1] ** 0.5
        return {"loss": parts.pop("total"), **parts, "top1": self.top1, "spread": spread}


class Contrastive(MomentumTeacher):
    """Student, teacher and memory queue. A subclass defines the loss in `forward`.

    Attributes:
        queue: Q, features of past batches.
        CONTRASTS: the number of cross entropies in each logged loss.
    """

    CONTRASTS: ClassVar[Mapping[str, int]]
    PROGRESS: ClassVar = {"loss": "loss {:.3f}", "top1": "top-1 {:.2f}"}

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """`generator`: draws the queue's initial features, on the CPU; `world`: the processes."""
        super().__init__(recipe, world)
        self.queue = MemoryQueue(recipe.queue_length, recipe.feature_dim, generator)  # line 5

    def after_step(self, step: Step) -> None:
        """Update the teacher, then insert the step's features into Q (lines 17 and 18)."""
        super().after_step(step)  # line 17
        self.queue.insert(*step.keys)  # line 18

    def health(self, step: Step) -> dict[str, Tensor]:
        """As `Method.health`; with alignment, uniformity and effective rank of the batch's features."""
        keys = step.keys[0]
        return super().health(step) | {
            "alignment": alignment(step.queries, self.world.block(keys)),
            "uniformity": uniformity(keys),
            "effective_rank": effective_rank(keys),
        }

    def plausible(self, metrics: Mapping[str, Tensor]) -> Tensor:
        """Whether each step's losses are finite and within reach: bool [steps].

        The limit of a cross entropy is its value if the key is at a right angle to the query and each row of Q equals
        the query.
        """
        limit = math.log(1 + self.recipe.queue_length) + 1 / self.recipe.temperature
        within = [metrics[name] <= count * limit for name, count in self.CONTRASTS.items()]
        return torch.stack([metrics["loss"].isfinite(), *within]).all(dim=0)


def contrast(query: Tensor, key: Tensor, past: Tensor, temperature: float) -> Tensor:
    """CE({q·k, q·Q}, gt) with gt = {1, 0, …, 0}, the mean over the batch (Algorithm 1, lines 11 to 13).

    Args:
        query, key: unit vectors [B, D].
        past: the queries' inner products with Q, [B, N].
        temperature: divides every inner product.
    """
    present = (query * key).sum(dim=1, keepdim=True)  # [B, 1]
    logits = torch.cat([present, past], dim=1) / temperature  # [B, 1 + N]
    gt = torch.zeros(len(logits), dtype=torch.long, device=logits.device)  # the class of the first column
    return functional.cross_entropy(logits, gt)


@torch.no_grad()
def contrast_top1(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """The share of queries [B, D] that are nearer to their key [B, D] than to any past feature [N, D]."""
    present = (query * key).sum(dim=1)
    return (present > (query @ queue.T).max(dim=1).values).float().mean()
