"""Grey levels of a DICOM file's stored values: unused bits, modality transform, window or own values, polarity."""

from typing import TYPE_CHECKING

import numpy as np

from ..errors import RadiographError
from .pixels import container_maximum, histogram, own_range, scale

if TYPE_CHECKING:
    from pydicom import Dataset

OVERLAYS = [(0x6000 + group, 0x0102) for group in range(0, 32, 2)]
"""OverlayBitPosition of each overlay. Above 0, the overlay is in bits of the pixels that BitsStored leaves unused."""


def stored_values(pixels: np.ndarray, dataset: "Dataset") -> tuple[np.ndarray, int]:
    """The pixel values in the bits from HighBit down, and the number of these bits, which is BitsStored.

    The other bits are dropped if they are the same in all pixels, extend the sign, or hold an overlay that the file
    declares. Otherwise the film uses them, so BitsStored and HighBit are wrong: then the values are returned as they
    are, with the number of bits of their dtype. Dropping them would turn the film into contour bands.

    Raises `RadiographError` for values of more than 16 bits.
    """
    width, bits = 8 * pixels.dtype.itemsize, dataset.BitsStored
    shift = max(dataset.get("HighBit", bits - 1) + 1 - bits, 0)
    if shift + bits > width:
        shift = 0
    if bits >= width:
        return pixels, bits
    mask, sign = 2**bits - 1, 2 ** (bits - 1) if pixels.dtype.kind == "i" else 0
    if not shift and -sign <= pixels.min() and pixels.max() < 2**bits - sign:
        return pixels, bits  # nearly all files; the steps below take as long as decoding
    shifted = pixels >> shift
    values = ((shifted & mask) ^ sign) - sign
    varying = int(np.bitwise_or.reduce(pixels ^ pixels.flat[0], axis=None)) % 2**width
    lower, upper = varying % 2**shift, varying >> (shift + bits)
    has_overlay = any(dataset[tag].value > 0 for tag in OVERLAYS if tag in dataset)
    if has_overlay or not (lower or (upper and (values != shifted).any())):
        return values, bits
    if not -(2**15) <= pixels.min() <= pixels.max() < 2 ** (15 if sign else 16):
        raise RadiographError(
            f"expected DICOM pixel values of {bits} bits, as in BitsStored, found values of more than 16; export it "
            "again"
        )
    return pixels, min(width, 16)


def grey_table(dataset: "Dataset", pixels: np.ndarray, bits: int) -> np.ndarray:
    """Grey level of each value of `bits` bits: uint8 [2**bits], with negative values indexed from the end."""
    from pydicom.pixels import apply_rescale, apply_windowing

    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    stored = values = np.arange(lowest, lowest + 2**bits)
    if "ModalityLUTSequence" in dataset:
        values = _look_up(values, dataset.ModalityLUTSequence[0])
    else:
        values = apply_rescale(values, dataset)
    low, high = values.min(), values.max()
    if "VOILUTSequence" in dataset:
        values = _look_up(values, dataset.VOILUTSequence[0])
        low, high = 0, container_maximum(int(values.max()))
    elif (window := find_window(dataset)) is not None:
        values = apply_windowing(values, dataset, window)
        # The grey levels far below and far above the window. A negative slope swaps them.
        low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset, window)
    elif bits > 8 and np.isfinite(values).all():
        counts = histogram(pixels, lowest, 2**bits)
        film = np.where(_is_padding(stored, dataset), 0, counts)
        low, high = own_range(values, film if film.any() else counts)
    if not np.isfinite([low, high]).all():
        raise RadiographError(
            "expected a finite rescale slope, intercept and window in a DICOM file, found NaN or infinity; export "
            "it again"
        )
    greys = scale(values, low, high)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = 255 - greys
    return np.roll(greys, lowest)


def _is_padding(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Whether each stored value is padding, by PixelPaddingValue and PixelPaddingRangeLimit: bool [K].

    Some files write a negative padding value as one without a sign, or the other way round: -2000 as 63536.
    """
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(values.shape, bool)
    ends = [first, dataset.get("PixelPaddingRangeLimit", first)]
    if dataset.PixelRepresentation:
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    else:
        ends = [end % 2**16 for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


def _look_up(values: np.ndarray, item: "Dataset") -> np.ndarray:
    """Map values through a DICOM lookup table. Values outside the table take its first or last entry.

    pydicom's function is not used, because it loses the upper bits of the index if the table's depth is 8, and supports
    modality tables of 8 and 16 bits only.
    """
    try:
        length, first, depth = item.LUTDescriptor
        entries = item.LUTData
    except (AttributeError, TypeError, ValueError):
        raise RadiographError(
            "expected LUTDescriptor and LUTData in each lookup table of a DICOM file, found a table without; export it "
            "again"
        ) from None
    if isinstance(entries, bytes):
        length = length or 2**16
        # A table may be shorter than its descriptor says; only then does the depth decide.
        is_bytes = length <= len(entries) <= length + 1 or (len(entries) < length and depth <= 8)
        order = "<" if item.is_little_endian is not False else ">"
        entries = np.frombuffer(entries[: len(entries) // 2 * 2], np.uint8 if is_bytes else f"{order}u2")
    table = np.asarray(entries, np.uint16).reshape(-1)
    if not table.size:
        raise RadiographError("expected entries in each lookup table of a DICOM file, found none; export it again")
    if first >= 2**15 and first > values.max():  # a negative number, read or written as one without a sign
        first -= 2**16
    return table.take(np.rint(values).astype(np.int64) - first, mode="clip").astype(np.int64)


def find_window(dataset: "Dataset") -> int | None:
    """Index of the first window that is valid: finite, and as wide as its function requires. None without one."""
    from pydicom.multival import MultiValue

    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return None
    centres, widths = (
        [float(one) for one in (value if isinstance(value, MultiValue) else [value])]
        for value in (dataset.WindowCenter, dataset.WindowWidth)
    )
    linear = dataset.get("VOILUTFunction", "LINEAR").upper() == "LINEAR"
    for index, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        if np.isfinite([centre, width]).all() and (width >= 1 if linear else width > 0):
            return index
    return None
