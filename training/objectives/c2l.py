"""C2L, "Comparing to Learn": Algorithm 1, lines 2, 5 and 7 to 15, line by line.

In MoCo's words the student is the query encoder and the teacher the key encoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import mixup
from ..memory_queue import MemoryQueue
from ..networks import Encoder, in_groups, in_shuffled_groups
from ..recipe import Recipe


class C2LLoss(NamedTuple):
    """total = (loss_a + loss_m) / 3; each a scalar, a mean over the batch."""

    total: Tensor
    loss_a: Tensor
    loss_m: Tensor


class Step(NamedTuple):
    """What one forward pass gives: the loss, the features that go into Q (line 18), and how the contrast fares."""

    loss: C2LLoss
    keys: tuple[Tensor, Tensor, Tensor]
    top1: Tensor


class C2L(nn.Module):
    """Student, teacher and memory queue."""

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.student = Encoder(recipe.architecture, recipe.feature_dim)  # line 3
        self.teacher = Encoder(recipe.architecture, recipe.feature_dim)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.queue = MemoryQueue(recipe.queue_length, recipe.feature_dim, generator)  # line 5

    def forward(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> Step:
        """Lines 2 and 7 to 15 for two augmented batches.

        Args:
            x1_a: float [B, 1, S, S], the student's view.
            x2_a: float [B, 1, S, S], the teacher's view.
            generator: a CPU generator for mixup and for ShuffleBN.
        """
        group = self.recipe.batch_norm_group
        m = mixup.draw(len(x1_a), self.recipe.mixup_alpha, generator)
        x1_m, x2_m = mixup.mix(x1_a, m), mixup.mix(x2_a, m)  # line 2

        with torch.autocast(x1_a.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            v1_a = in_groups(self.student, x1_a, group)  # line 7
            v1_m = in_groups(self.student, x1_m, group)
            with torch.no_grad():  # line 8
                v2_a = in_shuffled_groups(self.teacher, x2_a, group, generator)
                v2_m = in_shuffled_groups(self.teacher, x2_m, group, generator)
        v_m = mixup.mix(v2_a.float(), m)

        v1_a, v1_m, v2_a, v2_m, v_m = (functional.normalize(v.float(), dim=1) for v in (v1_a, v1_m, v2_a, v2_m, v_m))
        queue = self.queue.keys
        loss = c2l_loss(v1_a, v1_m, v2_a, v2_m, v_m, queue, self.recipe.temperature)  # lines 9 to 15
        return Step(loss, (v2_a, v2_m, v_m), contrast_top1(v1_a, v2_a, queue))


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
    loss_a = _cross_entropy(v1_a, v2_a, v1_a @ queue.T, temperature)  # line 12
    past = v1_m @ queue.T  # shared by both terms of line 13
    loss_m = _cross_entropy(v1_m, v2_m, past, temperature) + _cross_entropy(v1_m, v_m, past, temperature)
    return C2LLoss((loss_a + loss_m) / 3, loss_a, loss_m)


def _cross_entropy(query: Tensor, key: Tensor, past: Tensor, temperature: float) -> Tensor:
    """CE({q·k, q·Q}, gt) with gt = {1, 0, …, 0}: query, key [B, D], past [B, N] inner products."""
    present = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([present, past], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@torch.no_grad()
def contrast_top1(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """The share of queries [B, D] that are nearer to their key [B, D] than to any past feature [N, D]."""
    present = (query * key).sum(dim=1)
    return (present > (query @ queue.T).max(dim=1).values).float().mean()
