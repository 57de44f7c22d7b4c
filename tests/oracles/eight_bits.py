"""The scaling of integers to 8 bits, one pixel at a time in exact arithmetic."""

import numpy as np


def scaled(array: np.ndarray) -> list[list[int]]:
    """Integers [H, W] from 0 to 65535, scaled by the smallest of 8, 10, 12, 14 and 16 bits; halves do not occur."""
    bits = next(b for b in (8, 10, 12, 14, 16) if int(array.max()) < 2**b)
    return [[(2 * int(v) * 255 + 2**bits - 1) // (2 * (2**bits - 1)) for v in row] for row in array]
