"""What a detector's training and measurement depend on."""

import math
from dataclasses import dataclass
from typing import Annotated

from ..constraints import Above, AtLeast, Below, MultipleOf, check_values


@dataclass(frozen=True)
class Settings:
    """Size and batch are the paper's (section 5.2), which gives no more; the others are ours, the same for all starts.

    The learning rate is that of torchvision's RetinaNet reference (0.01 for 16 images), scaled to a batch of 4; it
    rises linearly over the warm-up and then falls to 0 as half a cosine.

    Attributes:
        size: side of the films, pixels.
        batch_size: films to a step.
        epochs: passes over the training part; its last films that do not fill a batch are left out.
        max_steps: fewer steps than the epochs have, for a trial; the learning rate follows.
        lr: learning rate of SGD, at its highest.
        momentum: of SGD.
        weight_decay: of every parameter.
        warmup: share of the steps.
        seed: of the layers that are new, the order of the films and their augmentation.
        bootstrap: resamples for the intervals.
    """

    size: Annotated[int, AtLeast(128), MultipleOf(32)] = 512
    batch_size: Annotated[int, AtLeast(1)] = 4
    epochs: Annotated[int, AtLeast(1)] = 20
    max_steps: Annotated[int | None, AtLeast(1)] = None
    lr: Annotated[float, Above(0)] = 0.0025
    momentum: Annotated[float, AtLeast(0), Below(1)] = 0.9
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    warmup: Annotated[float, AtLeast(0), Below(1)] = 0.05
    seed: Annotated[int, AtLeast(0)] = 0
    bootstrap: Annotated[int, AtLeast(0)] = 1000

    def __post_init__(self) -> None:
        """Raises RecipeError for a value of the wrong type or outside its range."""
        check_values(self)

    def total_steps(self, films: int) -> int:
        """The steps of a run on so many films."""
        steps = self.epochs * (films // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of a step, from 0, of `total`."""
        warmup = round(self.warmup * total)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return self.lr * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
