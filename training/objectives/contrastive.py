"""What C2L and MoCo share: a student and a momentum teacher whose past features fill a memory queue.

In MoCo's words the student is the query encoder and the teacher the key encoder.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..augment import Draws, two_views
from ..distributed import ALONE, World
from ..memory_queue import MemoryQueue
from ..networks import Encoder, in_groups, in_shuffled_groups, update_teacher
from ..recipe import Recipe
from .method import Method


class Step(NamedTuple):
    """What one forward pass gives: the loss, the features that go into Q (line 18), and how the contrast fares.

    Loss, a named tuple whose first field is `total`, and top1 are of this process's rows; the keys, float32 [W B, D]
    each, are of every process's.
    """

    loss: Any
    keys: tuple[Tensor, ...]
    top1: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """What is logged, left on its device. Spread: 0 where all features are one, 1 where they are even."""
        keys, parts = self.keys[0], self.loss._asdict()
        spread = keys.std(dim=0).mean() * keys.shape[1] ** 0.5
        return {"loss": parts.pop("total"), **parts, "top1": self.top1, "spread": spread}


class Contrastive(Method):
    """Student, teacher and memory queue; a method says what `forward` contrasts.

    `CONTRASTS`: of how many contrasts each logged loss is the sum.
    """

    CONTRASTS: ClassVar[Mapping[str, int]]

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """`generator`: a CPU generator for the queue's first content; `world`: the processes."""
        super().__init__(recipe, world)
        projection = (recipe.feature_dim, recipe.projection, recipe.projection_dropout)
        self.student = Encoder(recipe.architecture, *projection)  # line 3
        self.teacher = Encoder(recipe.architecture, *projection)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.networks = (self.student, self.teacher)
        self.queue = MemoryQueue(recipe.queue_length, recipe.feature_dim, generator)  # line 5

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None = None) -> tuple[Tensor, ...]:
        """Two augmented batches (line 1); see `Method.views`."""
        return two_views(batch, self.recipe, generator, self.world, draws)

    def after_step(self, step: Step) -> None:
        """Move the teacher and fill Q: lines 17 and 18."""
        update_teacher(self.teacher, self.student, self.recipe.teacher_momentum)  # line 17
        self.queue.insert(*step.keys)  # line 18

    def queries(self, x: Tensor) -> Tensor:
        """The student's features of images [B, 1, S, S], float32 [B, D], not normalised."""
        with self._autocast(x):
            return in_groups(self.student, x, self.recipe.batch_norm_group, self.recipe.gradient_checkpointing).float()

    @torch.no_grad()
    def keys(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's features of every process's images [B, 1, S, S], float32 [W B, D], not normalised."""
        if self.recipe.precision == "bfloat16":
            x = x.bfloat16()  # as the first layer would, but before it goes to another process
        with self._autocast(x):
            return self.teach(x, generator).float()

    def teach(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's forward pass with ShuffleBN: [B, 1, S, S] -> [W B, D]."""
        return in_shuffled_groups(self.teacher, x, self.recipe.batch_norm_group, generator, self.world)

    def sound(self, metrics: Mapping[str, Tensor]) -> Tensor:
        """Finite losses, none beyond what a contrast can cost whose key is no farther than at right angles."""
        limit = math.log(1 + self.recipe.queue_length) + 1 / self.recipe.temperature
        within = [metrics[name] <= count * limit for name, count in self.CONTRASTS.items()]
        return torch.stack([metrics["loss"].isfinite(), *within]).all(dim=0)


def contrast(query: Tensor, key: Tensor, past: Tensor, temperature: float) -> Tensor:
    """CE({q·k, q·Q}, gt) with gt = {1, 0, …, 0}: query, key [B, D], past [B, N] inner products."""
    present = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([present, past], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@torch.no_grad()
def contrast_top1(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """The share of queries [B, D] that are nearer to their key [B, D] than to any past feature [N, D]."""
    present = (query * key).sum(dim=1)
    return (present > (query @ queue.T).max(dim=1).values).float().mean()
