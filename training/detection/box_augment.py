"""Augment an image and its boxes: flip, shift, scale, brightness, contrast. Mild, so that the lungs stay in view."""

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
        v2.SanitizeBoundingBoxes(labels_getter=None),  # removes boxes outside the image
    ]
)


def augment(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Augment one image, with random numbers from torch's global generator.

    Args:
        image: uint8 [1, S, S].
        boxes: float [n, 4], n >= 0: left, top, right, bottom.

    Returns:
        Image and boxes; boxes outside the image are removed.
    """
    height, width = image.shape[-2:]
    format = tv_tensors.BoundingBoxFormat.XYXY
    boxed = tv_tensors.BoundingBoxes(boxes, format=format, canvas_size=(height, width))
    new_image, new_boxes = (part.as_subclass(torch.Tensor) for part in _AUGMENT(tv_tensors.Image(image), boxed))
    return new_image, new_boxes
