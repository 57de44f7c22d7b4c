"""Detect boxes with a trained detector."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.detection import RetinaNet

from c2l_models.progress import stage

from ..evaluation.rsna_challenge import DetectedBoxes
from .images import DetectionImages, batches_of


@torch.no_grad()
def predict(
    detector: RetinaNet,
    images: DetectionImages,
    positions: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    progress: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> list[DetectedBoxes]:
    """Detect boxes in the images at these positions.

    Returns:
        One `DetectedBoxes` per image, by descending score, in the pixels of the stored square. Boxes with a score
        below 0.05 are dropped.
    """
    detector.eval()
    detected: list[DetectedBoxes] = []
    with stage("evaluating", len(positions), "images", progress) as line:
        for batch in batches_of(positions, batch_size):
            pixels = images.store[images.rows[batch]].to(device).float() / 255
            with autocast(device, precision):
                detected += _to_numpy(detector(list(pixels)))
            line.advance(len(batch))
    return detected


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast for a detector, enabled for bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _to_numpy(outputs: Iterable[dict[str, torch.Tensor]]) -> list[DetectedBoxes]:
    return [DetectedBoxes(out["boxes"].double().cpu().numpy(), out["scores"].double().cpu().numpy()) for out in outputs]
