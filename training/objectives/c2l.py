"""C2L, "Comparing to Learn": Algorithm 1, lines 2, 5 and 7 to 15, line by line.

In MoCo's words the student is the query encoder and the teacher the key encoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import mixup
from ..distributed import ALONE, World
from ..memory_queue import MemoryQueue
from ..networks import Encoder, in_groups, in_shuffled_groups
from ..recipe import Recipe


class C2LLoss(NamedTuple):
    """total = (loss_a + loss_m) / 3; each a scalar, a mean over the batch."""

    total: Tensor
    loss_a: Tensor
    loss_m: Tensor


class Step(NamedTuple):
    """What one forward pass gives: the loss, the features that go into Q (line 18), and how the contrast fares.

    Loss and top1 are of this process's rows; the keys, float32 [W B, D] each, are of every process's.
    """

    loss: C2LLoss
    keys: tuple[Tensor, ...]
    top1: Tensor

    def figures(self) -> dict[str, Tensor]:
        """What is logged, left on its device. Spread: 0 where all features are one, 1 where they are even."""
        keys = self.keys[0]
        spread = keys.std(dim=0).mean() * keys.shape[1] ** 0.5
        loss, loss_a, loss_m = self.loss
        return {"loss": loss, "loss_a": loss_a, "loss_m": loss_m, "top1": self.top1, "spread": spread}


class C2L(nn.Module):
    """Student, teacher and memory queue, the same on every process."""

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """`generator`: a CPU generator for the queue's first content; `world`: the processes."""
        super().__init__()
        self.recipe, self.world = recipe, world
        projection = (recipe.feature_dim, recipe.projection, recipe.projection_dropout)
        self.student = Encoder(recipe.architecture, *projection)  # line 3
        self.teacher = Encoder(recipe.architecture, *projection)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.queue = MemoryQueue(recipe.queue_length, recipe.feature_dim, generator)  # line 5

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

        v1_a, v1_m = self.queries(x1_a), self.queries(x1_m)  # line 7
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

    def queries(self, x: Tensor) -> Tensor:
        """The student's features of images [B, 1, S, S], float32 [B, D], not normalised."""
        with self._autocast(x):
            return in_groups(self.student, x, self.recipe.batch_norm_group).float()

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

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")


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
