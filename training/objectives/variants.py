"""C2L with a part taken away, or done as elsewhere: the rows of Tables 1 and 2, and the released code's choices.

`Objective` in recipe.py says what each key means. The method itself is c2l.py; with every key at its default this
computes the same.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from .. import mixup
from ..networks import in_groups
from .c2l import C2L, C2LLoss
from .contrastive import Step, contrast, contrast_top1


class Variant(C2L):
    """Any `Objective` of a recipe."""

    def forward(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> Step:
        """Arguments and result as of `C2L.forward`; loss_a or loss_m is 0 where it has no term."""
        pairs, queue, losses = self.pairs(x1_a, x2_a, generator), self.queue, {}
        for term, (query, keys) in pairs.items():
            own = self.world.block(keys)
            losses[term] = contrast(query, own, query @ queue.keys.T, self.recipe.temperature)
            if self.recipe.objective.queue_update == "interleaved":
                queue = copy.deepcopy(queue)  # Q itself gets them at line 18, as always
                queue.insert(keys)
        query, keys = next(iter(pairs.values()))
        top1 = contrast_top1(query, self.world.block(keys), self.queue.keys)
        return Step(self.sum_up(losses), tuple(keys for _, keys in pairs.values()), top1)

    def pairs(self, x1_a: Tensor, x2_a: Tensor, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
        """Each term's unit vectors: the student's [B, D], and the teacher's of every process [W B, D]."""
        objective, world = self.recipe.objective, self.world
        m1 = m2 = self.draw_mix(len(x1_a), generator)
        if objective.mixup == "separate":
            m2 = self.draw_mix(len(x2_a), generator)
        v1_a = v1_m = v2_a = v2_m = v_m = torch.empty(0)  # what no term asks for is not computed
        if "clean" in objective.terms:
            v1_a = self.queries(x1_a)
        if {"mixed", "feature"} & set(objective.terms):
            v1_m = self.queries(mixup.mix(x1_a, m1.block(world)))
        if {"clean", "feature"} & set(objective.terms):
            v2_a = self.keys(x2_a, generator)
        if "mixed" in objective.terms:
            v2_m = self.keys(mixup.mix(x2_a, m2.block(world)), generator)
        if "feature" in objective.terms:
            v_m = mixup.mix(functional.normalize(v2_a) if objective.feature_mixup == "after_norm" else v2_a, m2)
        pairs = {"clean": (v1_a, v2_a), "mixed": (v1_m, v2_m), "feature": (v1_m, v_m)}
        return {
            term: (functional.normalize(query), functional.normalize(keys))
            for term, (query, keys) in pairs.items()
            if term in objective.terms
        }

    def draw_mix(self, batch_size: int, generator: torch.Generator) -> mixup.Mix:
        """As of `C2L.draw_mix`, with the larger of λ and 1 - λ where the recipe asks for it."""
        m = super().draw_mix(batch_size, generator)
        if self.recipe.objective.mixup_lambda == "max":
            lam = torch.as_tensor(m.lam)
            return replace(m, lam=torch.maximum(lam, 1 - lam))
        return m

    def teach(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's forward pass, with ShuffleBN or without: [B, 1, S, S] -> [W B, D]."""
        if self.recipe.objective.shuffle_bn:
            return super().teach(x, generator)
        return self.world.gather(in_groups(self.teacher, x, self.recipe.batch_norm_group))

    def sum_up(self, losses: dict[str, Tensor]) -> C2LLoss:
        """The terms' mean, or their sum over the whole batch."""
        none = next(iter(losses.values())).new_zeros(())
        loss_a = losses.get("clean", none)
        loss_m = losses.get("mixed", none) + losses.get("feature", none)
        total = (loss_a + loss_m) / len(losses)
        if self.recipe.objective.reduction == "sum":
            total = total * len(losses) * self.recipe.batch_size  # of which this process's mean is a W-th
        return C2LLoss(total, loss_a, loss_m)
