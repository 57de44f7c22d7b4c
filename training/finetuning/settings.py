"""Everything that decides what a fine-tuning run computes, beside its start, its store and its task."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..constraints import Above, AtLeast, AtMost, Below, check_values
from ..recipe import Augment


@dataclass(frozen=True)
class Settings:
    """One fine-tuning run; input size and epochs are the paper's, which says nothing of the rest (section 4)."""

    size: Annotated[int, AtLeast(1)] = 224
    """Side of the input, pixels, resampled from the store's images."""
    epochs: Annotated[int, AtLeast(1)] = 50
    batch_size: Annotated[int, AtLeast(2)] = 64
    """Fewer images than this to fit: all of them are one batch."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW: one rate serves a random start, a pretrained one and a handful of labels, so that starts are compared and
    not how well each was tuned; SGD, with momentum 0.9, wants a rate a hundred times as high."""
    lr: Annotated[float, AtLeast(0)] = 5e-4
    weight_decay: Annotated[float, AtLeast(0)] = 0.05
    """Not of biases and batch norm."""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine: down to 0 at the end; step: divided by 10 after each third of the steps."""
    layer_decay: Annotated[float, Above(0), AtMost(1)] = 1.0
    """A stage's rate, as a share of the rate of the stage after it; the head has `lr`."""
    frozen: bool = False
    """Train the head alone; the backbone stays as it is, batch norm included."""
    fraction: Annotated[float, Above(0), AtMost(1)] = 1.0
    """Share of the training patients whose labels are used at all, by the hash of seed and id: 1 % of them are among
    the 10 %."""
    hold_out: Annotated[float, Above(0), Below(1)] = 0.2
    """Share of those patients that are not fitted; the best epoch is chosen on them."""
    uncertain: Literal["zeros", "ones", "ignore"] = "ignore"
    """What a label that was read as uncertain is trained as, where a data set has such (CheXpert)."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Of the new head, a random start, the order, the augmentation, and both splits by patients."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast of the network in training; loss, parameters and all that is measured stay float32."""
    bootstrap: Annotated[int, AtLeast(0)] = 1000
    """Resamples of the test patients, the same ones whatever the seed: runs of several seeds can be paired."""
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
    """Milder than pretraining's: a finding should stay in the view. One default for all tasks: mirrored, a knee is the
    other knee, and of the chest's labels none depends on the side."""

    def __post_init__(self) -> None:
        """Raises RecipeError for a value of the wrong type or outside its range."""
        check_values(self)

    def to_dict(self) -> dict[str, Any]:
        """All keys and values, as JSON knows them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain
