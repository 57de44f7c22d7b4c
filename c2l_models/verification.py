"""Does this machine compute what we computed? The golden embedding of a release, once more."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .architectures import find_architecture
from .embedding import evaluating
from .hub import weight_file
from .releases.provenance import damaged, read_provenance
from .releases.record import Weights
from .releases.registry import get_weights

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-3
"""Largest difference allowed, as a share of the golden embedding's largest entry.

Float32 on other processors and libraries differs by about 1e-6, and TensorFloat-32 on GPUs by a few
1e-4; another resize, normalisation or batch-norm mode by 1e-2 and more.
"""


@dataclass(frozen=True)
class Verification:
    """`max_difference` is a share of the golden embedding's largest entry; `ok` needs both checks."""

    release: str
    sha256_ok: bool
    max_difference: float
    cosine: float
    ok: bool


def golden_image(size: int) -> Image.Image:
    """A fixed eight-bit pattern [size, size], mode "L": rings over a ramp, in integers alone."""
    y, x = np.mgrid[:size, :size].astype(np.int64) * 256 // size
    rings = ((x - 96) ** 2 + (y - 144) ** 2) // 96 % 256
    return Image.fromarray(((rings + 2 * x + y) // 4).astype(np.uint8))


def golden_embedding(model: "nn.Module", weights: Weights) -> list[float]:
    """The features of `golden_image` through the weights' own transform, in evaluation mode.

    `model`: one built with `num_classes=0`, of 1 or 3 input channels. It is left in the mode it was in.
    """
    import torch

    first = next(model.parameters())
    batch = weights.transform(in_chans=first.shape[1])(golden_image(weights.input_size[-1]))[None]
    with evaluating(model), torch.inference_mode():
        return model(batch.to(first.device))[0].float().cpu().tolist()


def verify(name: str) -> Verification:
    """Load the release `name`, embed the golden image, and compare with its provenance.

    Bytes with another hash are not loaded: their difference is infinite. Raises `WeightsNotFound`
    for an unknown release, or one without its file or its golden embedding, and `WeightsCorrupted`
    for a file that is no safetensors file or does not fit, or a damaged provenance.
    """
    from .models import model_from_file

    weights = get_weights(name)
    golden = np.array(_golden(weights))
    file = weight_file.read_verified(weights.location)
    if file.sha256 != weights.sha256:
        return Verification(name, sha256_ok=False, max_difference=math.inf, cosine=0.0, ok=False)
    model = model_from_file(weights, file)
    found = np.array(golden_embedding(model, weights))
    difference = float(np.abs(found - golden).max() / np.abs(golden).max())
    cosine = float(found @ golden / (np.linalg.norm(found) * np.linalg.norm(golden)))
    return Verification(name, True, difference, cosine, ok=difference <= TOLERANCE)


def _golden(weights: Weights) -> list[float]:
    values = read_provenance(weights, "golden_embedding")
    try:
        golden = [float(value) for value in values]
    except (ValueError, TypeError, OverflowError):
        raise damaged(weights, "golden_embedding as numbers") from None
    wanted = find_architecture(weights.architecture).num_features
    if len(golden) != wanted:
        raise damaged(weights, f"golden_embedding of {wanted} numbers, not of {len(golden)}")
    return golden
