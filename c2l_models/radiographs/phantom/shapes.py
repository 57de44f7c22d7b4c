"""Path lengths of parallel rays along z through simple bodies.

Arrays are float, of any shape. All lengths have the same unit (cm in `bodies`); angles are in radians.
"""

import math

import numpy as np

Point = tuple[float, float]


def ellipsoid(
    x: np.ndarray,
    y: np.ndarray,
    centre: Point,
    semi_axes: tuple[float, float, float],
    angle: float = 0.0,
) -> np.ndarray:
    """Path length through an ellipsoid rotated by `angle`: 2c sqrt(1 - (x'/a)^2 - (y'/b)^2)."""
    dx, dy = x - centre[0], y - centre[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    a, b, c = semi_axes
    return 2 * c * np.sqrt(np.clip(1 - (along / a) ** 2 - (across / b) ** 2, 0, 1))


def tube(x: np.ndarray, y: np.ndarray, start: Point, end: Point, radius: float) -> np.ndarray:
    """Path length through a straight round tube with round ends, which lies in the plane of the film."""
    return radius * chord(distance_to_segment(x, y, start, end), radius)


def shell(x: np.ndarray, y: np.ndarray, start: Point, end: Point, radius: float) -> np.ndarray:
    """Path length through a tube like a long bone: the marrow cavity attenuates less than the cortex."""
    distance = distance_to_segment(x, y, start, end)
    return radius * (chord(distance, radius) - 0.5 * chord(distance, 0.7 * radius))


def distance_to_segment(x: np.ndarray, y: np.ndarray, start: Point, end: Point) -> np.ndarray:
    """Distance of each point from the segment between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def chord(distance: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """Length of a chord at a distance from the centre of a circle, in radii: 2 sqrt(1 - (d/r)^2)."""
    return 2 * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))


def around(x: np.ndarray, y: np.ndarray, low: Point, high: Point, margin: float) -> tuple[slice, slice]:
    """The rows and columns of the film that contain the box between two corners, to compute small bodies faster."""
    # x and y are affine functions of the pixel indices, so the ends of a row or column are its extremes.
    in_y = _reaches(y[:, 0], y[:, -1], min(low[1], high[1]) - margin, max(low[1], high[1]) + margin)
    in_x = _reaches(x[0], x[-1], min(low[0], high[0]) - margin, max(low[0], high[0]) + margin)
    return in_y, in_x


def _reaches(one_end: np.ndarray, other_end: np.ndarray, low: float, high: float) -> slice:
    hits = np.flatnonzero((np.maximum(one_end, other_end) > low) & (np.minimum(one_end, other_end) < high))
    return slice(hits[0], hits[-1] + 1) if len(hits) else slice(0, 0)
