"""Settings of a fine-tuning run."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..constraints import Above, AtLeast, AtMost, Below, check_values
from ..recipe import Augment


@dataclass(frozen=True)
class Settings:
    """All settings of one fine-tuning run. The paper (section 4) states only size and epochs; the others are ours.

    The paper trains on all labelled images (section 3.2) and names no rule for the epoch. `hold_out = 0` is that
    protocol: no image is held out, and the last epoch's network is tested.
    """

    size: Annotated[int, AtLeast(1)] = 224
    """Side of the input in pixels. The store's images are resampled to it."""
    epochs: Annotated[int, AtLeast(1)] = 50
    """Passes over the images to fit."""
    batch_size: Annotated[int, AtLeast(2)] = 64
    """Images per step. If there are fewer images to fit, all of them are one batch."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW works with one learning rate for random and pretrained initializations and for few labels, so a comparison
    does not depend on tuning. SGD is timm's `sgd`, with Nesterov's momentum of 0.9; it needs a learning rate a hundred
    times as high."""
    lr: Annotated[float, AtLeast(0)] = 5e-4
    """Learning rate of the head, at its highest."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.05
    """Weight decay of all parameters except biases and batch norm."""
    schedule: Literal["cosine", "step"] = "cosine"
    """Schedule of the learning rate. cosine: falls to 0 at the end. step: is divided by 10 after each third of the
    steps."""
    layer_decay: Annotated[float, Above(0), AtMost(1)] = 1.0
    """Ratio of a stage's learning rate to the next stage's. The head's learning rate is `lr`."""
    frozen: bool = False
    """Train the head only. The backbone does not change, batch norm included."""
    fraction: Annotated[float, Above(0), AtMost(1)] = 1.0
    """Share of the training patients whose labels are used, chosen by a hash of seed and id. Smaller shares are part of
    larger ones."""
    hold_out: Annotated[float, AtLeast(0), Below(1)] = 0.2
    """Share of those patients on whom the best epoch is chosen. They are not trained on. 0: no epoch is chosen, and the
    last one is tested. The same applies if too few images would be held out (`task_split.MIN_TUNING_IMAGES`)."""
    uncertain: Literal["zeros", "ones", "ignore"] = "ignore"
    """Target of uncertain labels, which CheXpert has."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of the new head, of a random initialization, of the order and augmentation of the images, and of the splits
    by patient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network in training. bfloat16 uses autocast; loss, parameters and evaluation stay float32."""
    bootstrap: Annotated[int, AtLeast(0)] = 1000
    """Resamples of the test patients. They do not depend on the seed, so runs with several seeds can be paired."""
    augment: Augment = field(
        default_factory=lambda: Augment(
            crop_scale=(0.6, 1.0),
            crop_ratio=(0.9, 10 / 9),
            rotation=10.0,
            brightness=0.2,
            contrast=0.2,
            flip=0.5,
            cutout_holes=0,
        )
    )
    """Augmentation, milder than in pretraining, so that a finding stays in the view. The flip suits all tasks: a
    mirrored left knee looks like a right knee, and no chest label depends on the side."""

    def __post_init__(self) -> None:
        """Check all settings. Raises RecipeError."""
        check_values(self)

    def to_dict(self) -> dict[str, Any]:
        """All keys and their values, as JSON represents them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain
