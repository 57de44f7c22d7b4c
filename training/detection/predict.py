"""A trained detector's boxes."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.detection import RetinaNet

from ..evaluation.rsna_challenge import DetectedBoxes
from ..progress import progress_bar
from .images import Films, batches_of


@torch.no_grad()
def predict(
    detector: RetinaNet,
    films: Films,
    positions: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    progress: bool = False,
) -> list[DetectedBoxes]:
    """The boxes of the films at these positions, in the stored squares; the surest first, those below 0.05 dropped."""
    detector.eval()
    found: list[DetectedBoxes] = []
    with progress_bar("evaluating", progress) as bar:
        task = bar.add_task("", total=len(positions))
        for batch in batches_of(positions, batch_size):
            images = films.store[films.rows[batch]].to(device).float() / 255
            found += _predicted(detector(list(images)))
            bar.update(task, completed=len(found))
    return found


def _predicted(outputs: Iterable[dict[str, torch.Tensor]]) -> list[DetectedBoxes]:
    return [DetectedBoxes(out["boxes"].double().cpu().numpy(), out["scores"].double().cpu().numpy()) for out in outputs]
