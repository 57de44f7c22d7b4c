"""An image as it comes -> the network's input: the one preprocessing of a set of weights."""

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


@dataclass(frozen=True)
class Transform:
    """Grayscale, shorter side to `size`, centre crop, (x - mean) / std on 0..1, `in_chans` times.

    Takes a file's path, a PIL image of any mode, or an array or tensor [H, W], [1, H, W] or
    [3, H, W] of uint8, uint16 or floats in 0..1; 16 bits and floats become 8 by the rule of
    `c2l_models.radiographs.reading.to_eight_bits`, colour becomes luminance, a PIL image's EXIF orientation
    is applied. DICOM and white-is-zero TIFF need the path: an opened TIFF may come as a negative.
    Gives float32 [in_chans, size, size]. Raises `RadiographError` for another shape, dtype or range.
    """

    size: int
    mean: float
    std: float
    in_chans: int = 3

    def __call__(self, image: Any) -> Tensor:
        pixels = torch.from_numpy(np.array(square(to_film(image), self.size)))
        normalised = (pixels.float() / 255 - self.mean) / self.std
        return normalised.expand(self.in_chans, -1, -1).contiguous()


def to_film(image: Any) -> Image.Image:
    """One eight-bit grayscale image (mode "L") from whatever `Transform` takes."""
    if isinstance(image, str | os.PathLike):
        return read_radiograph(image)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode in WIDE_MODES:
            return Image.fromarray(_eight_bits(np.asarray(image)))
        return to_grey(image)
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise RadiographError(f"{type(image).__name__} where a path, PIL image, array or tensor was wanted")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise RadiographError(f"pixels of {image.dtype}: wanted uint8, uint16, or floats in 0..1")
    return Image.fromarray(_eight_bits(_one_channel(image)))


def _one_channel(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise RadiographError(
            f"an array of shape {list(array.shape)}: wanted [H, W], [1, H, W] or [3, H, W], channels first, "
            "one image at a time"
        )
    if array.shape[0] == 1:
        return array[0]
    # ITU-R 601 luminance, as Pillow's.
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), array.astype(np.float64), axes=1)
    return np.rint(grey).astype(array.dtype) if array.dtype.kind == "u" else grey


def _eight_bits(array: np.ndarray) -> np.ndarray:
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    allowed = 1 if array.dtype.kind == "f" else 2**16 - 1
    if not (low >= 0 and high <= allowed):
        raise RadiographError(
            f"pixels of {array.dtype} from {low} to {high}: wanted 0 to {allowed}. Pass the image as it was "
            "read, before any normalisation"
        )
    return to_eight_bits(array)
