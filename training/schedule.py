"""The number of steps of a run, and the learning rate and the teacher's momentum at each step."""

import math
from dataclasses import dataclass
from itertools import accumulate

from c2l_models.errors import DatasetError

from .recipe import Recipe

LR_BATCH_SIZE = 256
"""The batch size that `Optimizer.lr` is stated for. The rate is proportional to the batch size."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of a run: pure functions of the step, counted from 0.

    Attributes:
        recipe: the run's recipe.
        images: number of images that it trains on.
    """

    recipe: Recipe
    images: int

    def __post_init__(self) -> None:
        """Raise DatasetError if the images do not fill one batch."""
        if self.images < self.recipe.batch_size:
            raise DatasetError(
                f"expected at least one batch of {self.recipe.batch_size} images to train on, found {self.images}; add "
                "images, or lower --recipe.batch-size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in one pass over the images."""
        return self.images // self.recipe.batch_size

    @property
    def total_steps(self) -> int:
        """The recipe's `steps`, or if that is 0 the steps of its `epochs`."""
        return self.recipe.steps or self.recipe.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Number of steps of the warm-up."""
        return round(self.recipe.optimizer.warmup * self.total_steps)

    def phases(self) -> list[tuple[int, int]]:
        """The first step of each phase and the side of its views in pixels, in order."""
        shares = accumulate(self.recipe.early_shares, initial=0.0)
        sizes = (*self.recipe.early_sizes, self.recipe.size)
        return [(round(share * self.total_steps), size) for share, size in zip(shares, sizes, strict=True)]

    def size(self, step: int) -> int:
        """The side of a step's views, in pixels."""
        return next(size for first, size in reversed(self.phases()) if step >= first)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step.

        During the warm-up it rises linearly, and its last step has the full rate. Afterwards "steps" multiplies the
        rate by `lr_decay` at each milestone, which is a number of epochs (section 4 of the paper). "cosine" lowers it
        along half a cosine to `final_lr` after the last step.
        """
        optimizer = self.recipe.optimizer
        scale = self.recipe.batch_size / LR_BATCH_SIZE
        if step < self.warmup_steps:
            return optimizer.lr * scale * (step + 1) / self.warmup_steps
        if optimizer.schedule == "cosine":
            done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            return scale * _half_cosine(optimizer.lr, optimizer.final_lr, done)
        falls = sum(step >= round(milestone * self.steps_per_epoch) for milestone in optimizer.lr_milestones)
        return optimizer.lr * scale * optimizer.lr_decay**falls

    def teacher_momentum(self, step: int) -> float:
        """The momentum θ of the teacher's update after a step (equation 2).

        It is constant, or it moves along half a cosine to `teacher_momentum_final` after the last step, as in BYOL
        (Grill et al., NeurIPS 2020, section 3.3).
        """
        first, last = self.recipe.teacher_momentum, self.recipe.teacher_momentum_final
        return first if last == 0 else _half_cosine(first, last, step / self.total_steps)


def _half_cosine(first: float, last: float, done: float) -> float:
    """The value between `first` (done = 0) and `last` (done = 1) on half a period of a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
