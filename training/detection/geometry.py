"""Convert boxes between the pixels of an original image and the central square that a store holds."""

from dataclasses import dataclass

import numpy as np

from ..evaluation.intervals import Floats


@dataclass(frozen=True)
class Square:
    """The central square of an image of `width` x `height` pixels, resized to `size` x `size` as in a store."""

    width: int
    height: int
    size: int

    @property
    def side(self) -> int:
        """Side of the square in the image's pixels."""
        return min(self.width, self.height)

    @property
    def corner(self) -> Floats:
        """Left and top of the square in the image, [2]."""
        return np.array([self.width - self.side, self.height - self.side]) / 2

    def inward(self, boxes: Floats) -> Floats:
        """Left, top, width, height in the image -> left, top, right, bottom in the square, [n, 4], not clipped."""
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return (corners - np.tile(self.corner, 2)) * (self.size / self.side)

    def outward(self, boxes: Floats) -> Floats:
        """Left, top, right, bottom in the square -> left, top, width, height in the image, [n, 4]."""
        corners = boxes * (self.side / self.size) + np.tile(self.corner, 2)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
