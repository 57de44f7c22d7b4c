"""Settings of a detection run, and its learning rate."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ..constraints import Above, AtLeast, Below, MultipleOf, check_values


@dataclass(frozen=True)
class Settings:
    """The paper (section 4) states only size and batch size. The other settings are ours, the same for every
    initialization.

    The learning rate is from torchvision's RetinaNet reference (0.01 for 16 images), scaled to a batch of 4. It rises
    linearly during the warm-up, and then falls to 0 along half a cosine. Some hundred steps of these defaults detect
    nothing: for short runs, take `head = "group_norm"` and `optimizer = "adamw"` with a lower rate.
    """

    size: Annotated[int, AtLeast(128), MultipleOf(32)] = 512
    """Side of the input in pixels. A multiple of 32, the stride of the backbone's last layer."""
    batch_size: Annotated[int, AtLeast(1)] = 4
    """Images per step."""
    epochs: Annotated[int, AtLeast(1)] = 20
    """Passes over the training part. The last images of an epoch that do not fill a batch are left out."""
    max_steps: Annotated[int | None, AtLeast(1)] = None
    """Largest number of steps, for a trial run. The learning rate's schedule is shortened too. By
    default no limit."""
    head: Literal["plain", "group_norm"] = "plain"
    """Layers that predict classes and boxes. plain: as in the RetinaNet of the paper (Lin et al., ICCV 2017).
    group_norm: with group norm and the GIoU loss, as in torchvision's second version, `retinanet_resnet50_fpn_v2`,
    which learns in fewer steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD has momentum and needs thousands of steps. AdamW takes a rate of some 1e-4."""
    lr: Annotated[float, Above(0)] = 0.0025
    """Highest learning rate."""
    momentum: Annotated[float, AtLeast(0), Below(1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    """Weight decay of all parameters."""
    warmup: Annotated[float, AtLeast(0), Below(1)] = 0.05
    """Share of the steps during which the learning rate rises."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network in training and evaluation. bfloat16 uses autocast; parameters stay float32."""
    curve_every: Annotated[int, AtLeast(0)] = 0
    """Steps between two points of the curve: the metrics on the test part during training. 0: no curve. The curve
    decides nothing: the metrics are always of the last step."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of the new layers, the order of the images and their augmentation."""
    bootstrap: Annotated[int, AtLeast(0)] = 1000
    """Resamples of the patients for the intervals."""

    def __post_init__(self) -> None:
        """Check all settings. Raises RecipeError."""
        check_values(self)

    def to_dict(self) -> dict[str, Any]:
        """All keys and their values."""
        return dataclasses.asdict(self)

    def total_steps(self, images: int) -> int:
        """The number of steps of a run on `images` training images."""
        steps = self.epochs * (images // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of a step, counted from 0, of `total` steps."""
        warmup = round(self.warmup * total)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return self.lr * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
