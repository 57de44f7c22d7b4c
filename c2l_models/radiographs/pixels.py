"""Pixel values of any bit depth to uint8, colour to grayscale, and the resize-and-crop of all networks."""

import numpy as np
from PIL import Image, ImageChops

from ..errors import RadiographError

MAX_PIXELS = 2**26
"""Largest image, 8192 x 8192 pixels. A larger image is refused before it is decoded."""

CONTAINER_BITS = (8, 10, 12, 14, 16)
"""Possible bit depths of pixel values. A 16-bit file does not say how many of its bits the detector used."""

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's one-channel modes of more than 8 bits."""


def to_eight_bits(array: np.ndarray) -> np.ndarray:
    """Scale pixel values [H, W] of any real dtype to uint8 [H, W]: black to 0, full scale to 255.

    - bool: False to 0, True to 255.
    - Integers from 0 to 65535: full scale is 2**b - 1, where b is the smallest of 8, 10, 12, 14 and 16 that holds the
      array's maximum. For example, an array with a maximum between 1024 and 4095 is divided by 4095.
    - Floats from 0 to 1: full scale is 1.
    - Other values (negative, above 65535, other floats) have no nominal scale. The array's minimum becomes 0 and its
      maximum 255.

    Values are rounded to the nearest integer. A uint8 array is returned unchanged.

    Raises `RadiographError` for another shape, an empty array, a complex or object dtype, or NaN and infinity.
    """
    if array.ndim != 2 or array.size == 0:
        raise RadiographError(
            f"expected an array [H, W] with pixels of one channel, found the shape {list(array.shape)}"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise RadiographError(f"expected pixels of integers or floats, found {array.dtype}")
    low, high = array.min().item(), array.max().item()
    if not np.isfinite([low, high]).all():
        raise RadiographError("expected finite pixel values, found NaN or infinity")
    if array.dtype.kind in "iu" and low >= 0 and high < 2**16:
        full_scale = container_maximum(int(high))
        table = np.rint(np.arange(full_scale + 1) * (255 / full_scale)).astype(np.uint8)
        return table[array]
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return scale(array, low, high)


def square(image: Image.Image, size: int, extent: tuple[float, float] | None = None) -> Image.Image:
    """Resize the shorter side to `size` and crop the centre, to `size` x `size` pixels.

    Antialiased bilinear. An image of this size is returned unchanged. `c2l prepare`, `embed` and `Weights.transform`
    all use this function.

    `extent` is the width and height of the content, if it does not fill the image's last column or row.
    """
    if image.size == (size, size):
        return image
    width, height = extent or image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Only the central box is resampled: otherwise an image of 10 x 1,000,000 pixels would become 128 x 12,800,000.
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def to_grey(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to mode "L".

    More than 8 bits are scaled by `to_eight_bits`, colour becomes luminance, and transparent pixels are put on black.

    Raises `RadiographError` as `to_eight_bits` does.
    """
    if image.mode in WIDE_MODES:
        return Image.fromarray(to_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        # Pillow cannot convert premultiplied "La" to colour, nor a palette directly to "LA".
        image = image if image.mode in ("La", "RGBA") else image.convert("RGBA")
        if image.mode == "La" or image.getchannel("A").getextrema() != (255, 255):
            return ImageChops.multiply(*image.convert("LA").split())
    return image.convert("L")


def container_maximum(value: int) -> int:
    """2**b - 1 for the smallest b of `CONTAINER_BITS` that holds `value`, which must be below 65536."""
    return next(2**bits - 1 for bits in CONTAINER_BITS if value < 2**bits)


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale values from `low` to `high` to uint8 from 0 to 255, rounded and clipped; all 0 if `low` equals `high`."""
    # Both are halved before the subtraction, because the difference of two finite floats may be infinite.
    span = high / 2 - low / 2
    if span == 0:
        return np.zeros(values.shape, np.uint8)
    fractions = (values.astype(np.float64) / 2 - low / 2) / span
    return np.rint(fractions.clip(0, 1) * 255).astype(np.uint8)


def check_pixels(width: int, height: int) -> None:
    """Raise `RadiographError` if an image has no pixels, or more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise RadiographError(f"expected an image of 1 x 1 pixels or more, found {width} x {height}")
    if width * height > MAX_PIXELS:
        raise RadiographError(
            f"{width} x {height} pixels is above the limit of {MAX_PIXELS:,}; if the film is that large, "
            "save a smaller copy"
        )
