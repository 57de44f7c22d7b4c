"""What a detector's training and measurement depend on."""

import math
from dataclasses import dataclass

from c2l_models.errors import C2LError


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

    size: int = 512
    batch_size: int = 4
    epochs: int = 20
    max_steps: int | None = None
    lr: float = 0.0025
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    seed: int = 0
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        """Raise C2LError for a value outside what it may be."""
        least = {"size": 128, "batch_size": 1, "epochs": 1, "max_steps": 1, "seed": 0, "bootstrap": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise C2LError(f"{name} is {value}; wanted at least {minimum}")
        if self.size % 32:
            raise C2LError(f"size is {self.size}; wanted a multiple of 32, the step of the network's coarsest layer")
        if not (self.lr > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0 and 0 <= self.warmup < 1):
            raise C2LError(
                f"lr {self.lr}, momentum {self.momentum}, weight_decay {self.weight_decay}, warmup {self.warmup}; "
                "wanted lr above 0, weight_decay from 0, momentum and warmup from 0 to below 1"
            )

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
