"""Ablations of C2L: the rows of Tables 1 and 2, and the released code's choices.

`recipe.Objective` documents each key. With every key at its default, `Variant` computes the same as `C2L`.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .. import mixup
from ..networks import with_ghost_batch_norm
from .c2l import C2L, C2LLoss
from .contrastive import Contrastive, Step, contrast, contrast_top1
from .method import Column


class Variant(C2L):
    """C2L with any objective, as `recipe.Objective` describes it."""

    READS_OBJECTIVE: ClassVar[bool] = True

    def forward(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> Step:
        """Arguments and result as in `C2L.forward`; loss_a or loss_m is 0 if the objective has none of its terms."""
        pairs, queue, losses = self.pairs(x1_a, x2_a, generator), self.queue, {}
        for term, (query, keys) in pairs.items():  # [B, D] and [W B, D]
            own = self.world.block(keys)
            losses[term] = contrast(query, own, query @ queue.keys.T, self.recipe.temperature)
            if self.recipe.objective.queue_update == "interleaved":
                queue = copy.deepcopy(queue)  # a copy, because line 18 inserts the keys into Q itself
                queue.insert(keys)
        query, keys = next(iter(pairs.values()))
        top1 = contrast_top1(query, self.world.block(keys), self.queue.keys)
        return Step(self.total(losses), tuple(keys for _, keys in pairs.values()), top1, query.detach())

    def pairs(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
        """Each term's unit vectors: the student's [B, D], and the teacher's of every process [W B, D].

        Features that no term needs are not computed.
        """
        objective, world = self.recipe.objective, self.world
        m1, m2 = self.draw_mixes(len(x1_a), generator)
        v1_a = v1_m = v2_a = v2_m = v_m = torch.empty(0)
        if "clean" in objective.terms:
            v1_a = self.student_features(x1_a)
        if {"mixed", "feature"} & set(objective.terms):
            v1_m = self.student_features(mixup.mix(x1_a, m1.block(world)))
        if {"clean", "feature"} & set(objective.terms):
            v2_a = self.teacher_features(x2_a, generator)
        if "mixed" in objective.terms:
            v2_m = self.teacher_features(mixup.mix(x2_a, m2.block(world)), generator)
        if "feature" in objective.terms:
            v_m = mixup.mix(functional.normalize(v2_a) if objective.feature_mixup == "after_norm" else v2_a, m2)
        pairs = {"clean": (v1_a, v2_a), "mixed": (v1_m, v2_m), "feature": (v1_m, v_m)}
        return {
            term: (functional.normalize(query), functional.normalize(keys))
            for term, (query, keys) in pairs.items()
            if term in objective.terms
        }

    def draw_mixes(self, batch_size: int, generator: torch.Generator) -> tuple[mixup.Mix, mixup.Mix]:
        """The two views' mixtures: one draw for both, or with `mixup = "separate"` one for each."""
        first = self.draw_mix(batch_size, generator)
        if self.recipe.objective.mixup == "separate":
            return first, self.draw_mix(batch_size, generator)
        return first, first

    def draw_mix(self, batch_size: int, generator: torch.Generator) -> mixup.Mix:
        """As `C2L.draw_mix`; with `mixup_lambda = "max"` the larger of λ and 1 - λ."""
        m = super().draw_mix(batch_size, generator)
        if self.recipe.objective.mixup_lambda == "max":
            lam = torch.as_tensor(m.lam)
            return replace(m, lam=torch.maximum(lam, 1 - lam))
        return m

    def run_teacher(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's forward pass, with ShuffleBN or without: [B, 1, S, S] on each process -> [W B, D]."""
        if self.recipe.objective.shuffle_bn:
            return super().run_teacher(x, generator)
        return self.world.gather(with_ghost_batch_norm(self.teacher, x, self.recipe.batch_norm_group))

    def total(self, losses: dict[str, Tensor]) -> C2LLoss:
        """The mean of the terms, or their sum over terms and batch."""
        zero = next(iter(losses.values())).new_zeros(())
        loss_a = losses.get("clean", zero)
        loss_m = losses.get("mixed", zero) + losses.get("feature", zero)
        total = (loss_a + loss_m) / len(losses)
        if self.recipe.objective.reduction == "sum":
            # Each process multiplies by the whole batch, because gradients are averaged over processes.
            total = total * len(losses) * self.recipe.batch_size
        return C2LLoss(total, loss_a, loss_m)

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """As `C2L.columns`, with only the mixed views that some term needs."""
        terms, columns = set(self.recipe.objective.terms), Contrastive.columns(self, images, views, generator)
        if terms == {"clean"}:
            return columns
        first, second = self.draw_mixes(len(images), generator)
        m1 = first.block(self.world)
        m2 = m1 if second is first else second.block(self.world)
        return columns + self.mixed_columns(images, views, [m1, m2] if "mixed" in terms else [m1])
