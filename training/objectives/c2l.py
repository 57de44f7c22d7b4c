"""C2L, "Comparing to Learn", as in the paper's Algorithm 1.

    line    the paper                            the code
    1       X_1^A, X_2^A = Augment(X)            augment.two_views, called by MomentumTeacher.views
    2       X_i^M = mixup(X_i^A), i = 1, 2       mixup.draw and mixup.mix, in C2L.forward
    3       Initialize net_s and net_t           networks.Encoder, in MomentumTeacher.__init__
    5       Q = Rand(N, D)                       memory_queue.MemoryQueue, in Contrastive.__init__
    6       for i = 1 to K                       pretrain.train
    7       v_1^A, v_1^M = net_s(…)              MomentumTeacher.student_features, in C2L.forward
    8       v_2^A, v_2^M = net_t(…)              MomentumTeacher.teacher_features, in C2L.forward
    8       v_m = mixup(v_2^A)                   mixup.mix, in C2L.forward
    9-15    loss = loss_A + loss_M               c2l_loss; one cross entropy: contrastive.contrast
    16      Backward(loss)                       pretrain.train_step
    17      net_t = Momentum(net_t, net_s)       networks.update_teacher, in MomentumTeacher.after_step
    18      Q.insert(v_2^A, v_2^M, v_m)          MemoryQueue.insert, in Contrastive.after_step

Shapes: each of W processes has B of the batch's Z images, as X [B, 1, S, S]; features have D components, Q has N rows.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .. import mixup
from ..constraints import check
from ..distributed import ALONE, World
from ..recipe import Objective, Recipe
from .contrastive import PANELS, Contrastive, Step, contrast, contrast_top1
from .method import Column, Panel


class C2LLoss(NamedTuple):
    """total = (loss_a + loss_m) / 3; each a scalar, a mean over the batch."""

    total: Tensor
    loss_a: Tensor
    loss_m: Tensor


class C2L(Contrastive):
    """Three contrasts: clean views, mixed views, and mixed view with mixed features."""

    CONTRASTS: ClassVar = {"loss_a": 1, "loss_m": 2}
    PANELS: ClassVar = (
        Panel("loss, mean over the batch", {"loss": "loss", "loss_a": "A", "loss_m": "M (two terms)"}),
        *PANELS,
    )
    READS_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, generator: torch.Generator | None = None, world: World = ALONE) -> None:
        """See `Contrastive`. Raises RecipeError if `recipe.objective` is an ablation, which only `Variant` computes."""
        method = self.READS_OBJECTIVE or recipe.objective == Objective()
        check(method, recipe, "objective", "the defaults; other objectives are computed by variants.Variant")
        super().__init__(recipe, generator, world)

    def forward(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> Step:
        """Lines 2 and 7 to 15 for two augmented batches.

        Args:
            x1_a: X_1^A, float [B, 1, S, S], the student's view of this process's images.
            x2_a: X_2^A, float [B, 1, S, S], the teacher's view of the same images.
            generator: for mixup and ShuffleBN; in the same state on every process.

        Returns:
            The loss, and the keys (v_2^A, v_2^M, v_m) of all W B images, which line 18 inserts into Q.
        """
        world = self.world
        m = self.draw_mix(len(x1_a), generator)  # λ and the shuffle of all W B images
        own = m.block(world)  # the part of this process
        x1_m, x2_m = mixup.mix(x1_a, own), mixup.mix(x2_a, own)  # line 2, [B, 1, S, S]

        v1_a, v1_m = self.student_features(torch.cat([x1_a, x1_m])).chunk(2)  # line 7 in one pass, [B, D]
        v2_a, v2_m = self.teacher_features(x2_a, generator), self.teacher_features(x2_m, generator)  # line 8, [W B, D]
        v_m = mixup.mix(v2_a, m)  # line 8, [W B, D]

        v1_a, v1_m, v2_a, v2_m, v_m = (functional.normalize(v, dim=1) for v in (v1_a, v1_m, v2_a, v2_m, v_m))
        queue = self.queue.keys  # [N, D]
        own_a, own_m, own_mix = (world.block(v) for v in (v2_a, v2_m, v_m))  # [B, D]
        loss = c2l_loss(v1_a, v1_m, own_a, own_m, own_mix, queue, self.recipe.temperature)  # lines 9 to 15
        return Step(loss, (v2_a, v2_m, v_m), contrast_top1(v1_a, own_a, queue), v1_a.detach())

    @property
    def teacher_batches(self) -> int:
        """X_2^A and X_2^M, if the objective has a term that needs them (line 8)."""
        terms = set(self.recipe.objective.terms)
        return bool({"clean", "feature"} & terms) + ("mixed" in terms)

    def draw_mix(self, batch_size: int, generator: torch.Generator) -> mixup.Mix:
        """Draw λ and the shuffle for all W B images, B = `batch_size`; images are mixed within their process."""
        recipe, size = self.recipe, self.world.size
        return mixup.draw(batch_size * size, recipe.mixup_alpha, generator, recipe.mixup_blocks)

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """The two augmented views, the images mixed in, and the two mixed views."""
        m = self.draw_mix(len(images), generator).block(self.world)
        return super().columns(images, views, generator) + self.mixed_columns(images, views, [m, m])

    def mixed_columns(self, images: Tensor, views: Sequence[Tensor], mixes: Sequence[mixup.Mix]) -> list[Column]:
        """For each mixture, a column of the images mixed in and a column of mixed views.

        If both views have the same mixture, the images mixed in are shown once.
        """
        columns: list[Column] = []
        for i, (view, m) in enumerate(zip(views, mixes, strict=False)):
            lam, partners = float(m.lam), m.permutation.tolist()
            if i == 0 or m is not mixes[0]:
                names = [f"film {partner + 1}" for partner in partners]
                columns.append(Column("film mixed in", "in the store", images[partners] / 255, names))
            shares = [
                f"{lam:.2f} of {row + 1} + {1 - lam:.2f} of {partner + 1}" for row, partner in enumerate(partners)
            ]
            network = ("for the student", "for the teacher")[i]
            columns.append(self.column(f"mixed view {i + 1}", network, mixup.mix(view, m), shares))
        return columns


def c2l_loss(
    v1_a: Tensor, v1_m: Tensor, v2_a: Tensor, v2_m: Tensor, v_m: Tensor, queue: Tensor, temperature: float
) -> C2LLoss:
    """The three contrasts of Algorithm 1, lines 9 to 15 (equations 3 and 4).

    Args:
        v1_a, v1_m: v_1^A and v_1^M, unit vectors [B, D] of the student.
        v2_a, v2_m, v_m: v_2^A, v_2^M and v_m, unit vectors [B, D] of the teacher; v_m is mixup(v_2^A).
        queue: Q, unit vectors [N, D].
        temperature: divides every inner product; not printed in the paper.

    Returns:
        Means over the batch and, in `total`, over the three terms. The paper prints sums, which would multiply the
        learning rate by 3 Z.
    """
    loss_a = contrast(v1_a, v2_a, v1_a @ queue.T, temperature)  # line 12
    past = v1_m @ queue.T  # [B, N], in both terms of line 13
    loss_m = contrast(v1_m, v2_m, past, temperature) + contrast(v1_m, v_m, past, temperature)  # line 13
    return C2LLoss((loss_a + loss_m) / 3, loss_a, loss_m)  # line 15
