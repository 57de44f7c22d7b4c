"""Pixel values of any depth -> uint8, and the one geometry between an image and a network."""

import numpy as np
from PIL import Image, ImageChops

from ..errors import RadiographError

MAX_PIXELS = 2**26
"""Larger images (8192 x 8192 is the limit) are refused before they are decoded."""

CONTAINER_BITS = (8, 10, 12, 14, 16)
"""Detectors store 8 to 16 bits; a 16-bit file does not say how many of them it uses."""

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's one-channel modes of more than eight bits."""


def to_eight_bits(array: np.ndarray) -> np.ndarray:
    """Map pixel values [H, W] of any real dtype to uint8 [H, W], black to 0 and full scale to 255.

    - bool: False to 0, True to 255.
    - Integers from 0 to 65535: full scale is 2**b - 1 with b the smallest of 8, 10, 12, 14, 16
      that holds the array's own maximum. So uint8 is returned as it is, and a 12-bit film in a
      16-bit file (maximum between 1024 and 4095) is divided by 4095, whatever its brightest pixel.
    - Floats from 0 to 1: full scale is 1.
    - All else (negative, above 65535, other floats) has no nominal scale: the array's own minimum
      becomes 0 and its maximum 255.

    Rounded to nearest. Raises `RadiographError` for another shape, a complex or object dtype, an
    empty array, or values that are not finite.
    """
    if array.ndim != 2 or array.size == 0:
        raise RadiographError(f"an array of shape {list(array.shape)} where one channel [H, W] was wanted")
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise RadiographError(f"pixels of dtype {array.dtype} where integers or floats were wanted")
    low, high = array.min().item(), array.max().item()
    if not np.isfinite([low, high]).all():
        raise RadiographError("pixel values that are not finite (NaN or infinity)")
    if array.dtype.kind in "iu" and low >= 0 and high < 2**16:
        full_scale = container_maximum(int(high))
        table = np.rint(np.arange(full_scale + 1) * (255 / full_scale)).astype(np.uint8)
        return table[array]
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return scale(array, low, high)


def square(image: Image.Image, size: int, extent: tuple[float, float] | None = None) -> Image.Image:
    """The central square of `image` at `size` x `size` pixels: shorter side to `size`, centre crop.

    Antialiased bilinear. An image that has the size already is returned as it is. This is the one
    geometry between a film and a network: `c2l prepare`, `embed` and `Weights.transform` share it.
    `extent` is the film's width and height in the image, where its last pixels are not filled.
    """
    if image.size == (size, size):
        return image
    width, height = extent or image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # One resampling of the central box: a film of 10 x 1,000,000 pixels never becomes 128 x 12,800,000.
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def to_grey(image: Image.Image) -> Image.Image:
    """A PIL image of any mode -> mode "L": wide modes by `to_eight_bits`, colour to luminance, over black.

    Raises `RadiographError` as `to_eight_bits` does.
    """
    if image.mode in WIDE_MODES:
        return Image.fromarray(to_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        # Pillow knows no way from premultiplied "La" to colour, nor from a palette straight to "LA".
        image = image if image.mode in ("La", "RGBA") else image.convert("RGBA")
        if image.mode == "La" or image.getchannel("A").getextrema() != (255, 255):
            return ImageChops.multiply(*image.convert("LA").split())
    return image.convert("L")


def container_maximum(value: int) -> int:
    """2**b - 1 for the smallest b of `CONTAINER_BITS` that holds `value`, which is below 65536."""
    return next(2**bits - 1 for bits in CONTAINER_BITS if value < 2**bits)


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` -> uint8 from 0 to 255, rounded and clipped; a flat range -> 0."""
    # Halved before they are subtracted: the span of two finite floats may not be finite.
    span = high / 2 - low / 2
    if span == 0:
        return np.zeros(values.shape, np.uint8)
    shares = (values.astype(np.float64) / 2 - low / 2) / span
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)


def check_pixels(width: int, height: int) -> None:
    """Raise `RadiographError` for an image of no pixels or of more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise RadiographError(f"an image of {width} x {height} pixels holds no film")
    if width * height > MAX_PIXELS:
        raise RadiographError(
            f"{width} x {height} pixels is above the limit of {MAX_PIXELS:,}. If the film is that large, "
            "save a smaller copy"
        )
