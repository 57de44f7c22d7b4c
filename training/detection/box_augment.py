"""A film and its boxes, mirrored, shifted, scaled, brighter or darker: mild, for a lung stays a lung."""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

SHIFT, SCALE, JITTER = 0.05, 0.1, 0.2

_AUGMENT = v2.Compose(
    [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomAffine(0, translate=(SHIFT, SHIFT), scale=(1 - SCALE, 1 + SCALE)),  # no rotation: boxes stay tight
        v2.ColorJitter(brightness=JITTER, contrast=JITTER),
        v2.SanitizeBoundingBoxes(labels_getter=None),  # one that was shifted out of the film
    ]
)


def augment(film: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from torch's global generator, one film at a time.

    Args:
        film: uint8 [1, S, S].
        boxes: float [n, 4], n from 0: left, top, right, bottom.

    Returns:
        Film and boxes, of which those outside the film are gone.
    """
    height, width = film.shape[-2:]
    format = tv_tensors.BoundingBoxFormat.XYXY
    both = _AUGMENT(tv_tensors.Image(film), tv_tensors.BoundingBoxes(boxes, format=format, canvas_size=(height, width)))
    changed, moved = (part.as_subclass(torch.Tensor) for part in both)
    return changed, moved
