"""Pixel values of any bit depth to uint8, colour to grayscale, and the resize-and-crop of all networks."""

import numpy as np
from PIL import Image, ImageChops

from ..errors import RadiographError

MAX_PIXELS = 2**26
"""Largest image, 8192 x 8192 pixels. A larger image is refused before it is decoded."""

CONTAINER_BITS = (8, 10, 12, 14, 16)
"""Possible bit depths of the output of a DICOM lookup table. Its descriptor often states another depth."""

TAIL = 0.005
"""Share of pixels at each end of an image's values that may become black or white in `own_range`."""

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's one-channel modes of more than 8 bits."""


def to_eight_bits(array: np.ndarray) -> np.ndarray:
    """Scale pixel values [H, W] of any real dtype to uint8 [H, W], so that black is 0 and white is 255.

    | values | 0 | 255 |
    |---|---|---|
    | bool | False | True |
    | uint8 | 0 | 255: unchanged |
    | int8 | -128 | 127 |
    | other integers | low of `own_range` | high of `own_range` |
    | floats from 0 to 1 | 0 | 1 |
    | other floats | low of `own_range` | high of `own_range` |

    A file of more than 8 bits does not say how many of them the detector used, so its own values are the only scale
    that never gives a black image. Values are rounded to the nearest integer and clipped.

    Raises `RadiographError` for another shape, an empty array, a complex or object dtype, or NaN and infinity.
    """
    if array.ndim != 2 or array.size == 0:
        raise RadiographError(
            f"expected an array [H, W] with pixels of one channel, found the shape {list(array.shape)}"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.int8:
        return array.view(np.uint8) ^ np.uint8(128)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise RadiographError(f"expected pixels of integers or floats, found {array.dtype}")
    low, high = array.min().item(), array.max().item()
    if not np.isfinite([low, high]).all():
        raise RadiographError("expected finite pixel values, found NaN or infinity")
    if array.dtype.kind == "f":
        return scale(array, 0, 1) if low >= 0 and high <= 1 else scale(array, *own_range(*_distinct(array)))
    if high - low >= 2**16 or high >= 2**63:
        return scale(array, *own_range(*_distinct(array)))
    values = np.arange(low, high + 1)
    greys = scale(values, *own_range(values, histogram(array, low, len(values))))
    return greys[array - array.dtype.type(low) if array.dtype.kind == "u" else array.astype(np.int64) - low]


def own_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The values that become black and white in an image without a nominal scale.

    1. The lowest and the highest value are left out if each has more than `TAIL` of the pixels: such a value is a
       constant border, padding or saturation.
    2. The quantiles `TAIL` and 1 - `TAIL` of the other pixels (numpy's method "inverted_cdf"), so that some defective
       pixels or burnt-in letters do not darken the image.
    3. If both are equal, the lowest and the highest value of all pixels.

    Args:
        values: finite numbers [K] in any order.
        counts: pixels of each value, [K], at least one of which is above 0.
    """
    present = counts > 0
    levels, index = np.unique(values[present], return_inverse=True)
    counts = np.bincount(index, counts[present])
    inner = counts.copy()
    for end in (0, -1):
        if counts[end] > TAIL * counts.sum():
            inner[end] = 0
    below = np.cumsum(inner)
    if below[-1] == 0:
        return levels[0], levels[-1]
    low, high = levels[np.searchsorted(below, np.array([TAIL, 1 - TAIL]) * below[-1])]
    return (low, high) if low < high else (levels[0], levels[-1])


def histogram(array: np.ndarray, low: int, length: int) -> np.ndarray:
    """Pixels of each of the values `low` to `low + length - 1` in an integer array of such values: int64 [length]."""
    counts = np.zeros(length, np.int64)
    flat = array.reshape(-1)
    for start in range(0, flat.size, 2**20):  # in parts, because each part is copied to int64
        counts += np.bincount(flat[start : start + 2**20].astype(np.int64) - low, minlength=length)
    return counts


def _distinct(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, counts = np.unique(array, return_counts=True)
    return values.astype(np.float64), counts


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

    Raises `RadiographError` as `to_eight_bits` does, and for an image that is transparent everywhere.
    """
    if image.mode in WIDE_MODES:
        return Image.fromarray(to_eight_bits(np.asarray(image)))
    if image.mode == "LAB":  # Pillow cannot convert it.
        return image.getchannel("L")
    if image.has_transparency_data:
        # Pillow cannot convert premultiplied "La" to colour, nor a palette directly to "LA".
        image = image if image.mode in ("La", "RGBA") else image.convert("RGBA")
        opacity = image.getchannel(image.getbands()[-1]).getextrema()
        if opacity == (0, 0):
            raise RadiographError(
                "expected an image with visible pixels, found one that is transparent everywhere; save it without its "
                "alpha channel"
            )
        if image.mode == "La" or opacity != (255, 255):
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
