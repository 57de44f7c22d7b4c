"""Check that this machine computes a release's golden embedding, the features recorded with the release."""

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
"""Largest allowed difference, as a share of the golden embedding's largest entry.

Float32 on other processors and libraries differs by about 1e-6, TensorFloat-32 on GPUs by a few 1e-4. A wrong resize,
normalisation or batch-norm mode differs by 1e-2 or more.
"""


@dataclass(frozen=True)
class Verification:
    """The result of `verify`. `max_difference` is a share of the golden embedding's largest entry; `ok` means that both
    checks passed."""

    release: str
    sha256_ok: bool
    max_difference: float
    cosine: float
    ok: bool


def golden_image(size: int) -> Image.Image:
    """Draw a fixed 8-bit test image [size, size], mode "L": rings over a ramp, in integer arithmetic."""
    y, x = np.mgrid[:size, :size].astype(np.int64) * 256 // size
    rings = ((x - 96) ** 2 + (y - 144) ** 2) // 96 % 256
    return Image.fromarray(((rings + 2 * x + y) // 4).astype(np.uint8))


def golden_embedding(model: "nn.Module", weights: Weights) -> list[float]:
    """Compute the features of `golden_image` with the weights' own transform, in evaluation mode.

    `model`: built with `num_classes=0` and 1 or 3 input channels. Its train or evaluation mode is restored.
    """
    import torch

    first = next(model.parameters())
    batch = weights.transform(in_chans=first.shape[1])(golden_image(weights.input_size[-1]))[None]
    with evaluating(model), torch.inference_mode():
        return model(batch.to(first.device, first.dtype))[0].float().cpu().tolist()


def verify(name: str) -> Verification:
    """Load a release, embed the golden image, and compare the features with the release's provenance.

    If the file's hash is wrong, the file is not loaded and `max_difference` is infinite. Raises `WeightsNotFound` if
    the release, its file or its golden embedding does not exist, and `WeightsCorrupted` if the file is not a
    safetensors file or does not fit the architecture, or if its provenance is damaged.
    """
    from .models import model_from_file

    weights = get_weights(name)
    golden = np.array(_golden(weights))
    file = weight_file.read_verified(weights.location)
    if file.sha256 != weights.sha256:
        return Verification(name, sha256_ok=False, max_difference=math.inf, cosine=0.0, ok=False)
    model = model_from_file(weights, file).float()  # whatever torch's default dtype
    found = np.array(golden_embedding(model, weights))
    difference = float(np.abs(found - golden).max() / np.abs(golden).max())
    cosine = float(found @ golden / (np.linalg.norm(found) * np.linalg.norm(golden)))
    return Verification(name, True, difference, cosine, ok=difference <= TOLERANCE)


def _golden(weights: Weights) -> list[float]:
    try:
        golden = [float(value) for value in read_provenance(weights, "golden_embedding")["golden_embedding"]]
    except (ValueError, TypeError, OverflowError):
        raise damaged(weights, "golden_embedding to be a list of numbers") from None
    expected = find_architecture(weights.architecture).num_features
    if len(golden) != expected:
        raise damaged(weights, f"a golden_embedding of {expected} numbers, found {len(golden)}")
    return golden
