"""The scaling of an image without a nominal scale to 8 bits, with numpy's quantiles of its pixels."""

import numpy as np


def scaled(array: np.ndarray) -> np.ndarray:
    """Real grey levels 0 to 255, float64 [H, W], before rounding.

    Half a percent of the pixels at each end is clipped, after the lowest and the highest value are left out if they
    have more than half a percent of the pixels.
    """
    pixels = array.astype(np.float64)
    film = pixels
    for end in (pixels.min(), pixels.max()):
        if np.mean(pixels == end) > 0.005:
            film = film[film != end]
    low = high = 0.0
    if film.size:
        low, high = np.quantile(film, [0.005, 0.995], method="inverted_cdf")
    if low == high:
        low, high = pixels.min(), pixels.max()
    return ((pixels - low) / ((high - low) or 1.0)).clip(0, 1) * 255
