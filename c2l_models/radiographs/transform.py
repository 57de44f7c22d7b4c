"""Prepare an image for a network: `Transform`, the preprocessing that belongs to a set of weights."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import RadiographError
from .pixels import WIDE_MODES, square, to_eight_bits, to_grey
from .reading import read_radiograph

ROUNDING = 1e-5
"""How far floats may lie outside 0..1, because resizing rounds; for half precision, two of its steps at 1."""


@dataclass(frozen=True)
class Transform:
    """Convert an image to float32 [in_chans, size, size].

    The steps: grayscale, shorter side to `size`, centre crop, pixels to 0..1, (x - mean) / std, `in_chans` copies.

    The image is a file's path, a PIL image of any mode, or an array or tensor [H, W], [1, H, W] or [3, H, W] of uint8,
    uint16 or floats in 0..1, up to `ROUNDING`. uint16 is scaled by its own values (`pixels.to_eight_bits`), colour
    becomes luminance, and a PIL image's EXIF orientation is applied. Pass DICOM and TIFF files by path: an opened TIFF
    may be inverted or have wrong signs.

    Raises `RadiographError` for a file that cannot be read, and for another type, shape, dtype or range of values.
    """

    size: int
    mean: float
    std: float
    in_chans: int = 3

    def __call__(self, image: Any) -> Tensor:
        pixels = torch.from_numpy(np.array(square(to_image(image), self.size)))
        normalized = (pixels.float() / 255 - self.mean) / self.std
        return normalized.expand(self.in_chans, -1, -1).contiguous()


def to_image(image: Any) -> Image.Image:
    """Convert any input of `Transform` to a PIL image of mode "L"."""
    if isinstance(image, str | os.PathLike):
        return read_radiograph(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:  # Pillow would resize it to a black square
            raise RadiographError(f"expected an image with pixels, found one of {image.width} x {image.height}")
        image = ImageOps.exif_transpose(image)
        if image.mode in WIDE_MODES:
            return Image.fromarray(_eight_bits(np.asarray(image)))
        return to_grey(image)
    rounding = ROUNDING
    if isinstance(image, Tensor):
        if image.dtype == torch.bfloat16:
            rounding = 2 * torch.finfo(image.dtype).eps
            image = image.float()  # numpy has no bfloat16
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise RadiographError(f"expected a path, PIL image, array or tensor, found {type(image).__name__}")
    if image.dtype == np.float16:
        rounding = 2 * float(np.finfo(image.dtype).eps)
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise RadiographError(f"expected pixels of uint8, uint16 or floats in 0..1, found {image.dtype}")
    return Image.fromarray(_eight_bits(_one_channel(image), rounding))


def _one_channel(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise RadiographError(
            f"expected the shape [H, W], [1, H, W] or [3, H, W], found {list(array.shape)}; pass one image at a time, "
            "channels first"
        )
    if array.shape[0] == 1:
        return array[0]
    # Luminance of ITU-R BT.601, as in Pillow.
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), array.astype(np.float64), axes=1)
    return np.rint(grey).astype(array.dtype) if array.dtype.kind == "u" else grey


def _eight_bits(array: np.ndarray, rounding: float = ROUNDING) -> np.ndarray:
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    allowed, tolerance = (1, rounding) if array.dtype.kind == "f" else (2**16 - 1, 0)
    if not (low >= -tolerance and high <= allowed + tolerance):
        raise RadiographError(
            f"expected {array.dtype} pixels from 0 to {allowed}, found {low} to {high}; pass the image as it was read, "
            "before any normalization"
        )
    return to_eight_bits(array.clip(0, allowed) if tolerance else array)
