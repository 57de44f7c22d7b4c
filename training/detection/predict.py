"""Detect boxes with a trained detector."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.detection import RetinaNet

from c2l_models.progress import stage

from ..evaluation.rsna_challenge import DetectedBoxes
from ..networks import autocast
from .images import DetectionImages


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
        for start in range(0, len(positions), batch_size):
            batch = positions[start : start + batch_size]
            pixels = images.store[images.rows[batch]].to(device).float() / 255
            with autocast(device, precision):
                found = detector(list(pixels))
            for one in found:
                detected.append(DetectedBoxes(*(one[key].double().cpu().numpy() for key in ("boxes", "scores"))))
            line.advance(len(batch))
    return detected
