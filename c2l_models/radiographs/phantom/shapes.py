"""Path lengths of parallel rays along z through simple bodies, for `bodies`.

Arrays are of any shape, float; lengths share one unit (there: cm); angles are in radians.
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
    """Path length along z through an ellipsoid turned by `angle`: 2c sqrt(1 - (x'/a)^2 - (y'/b)^2)."""
    dx, dy = x - centre[0], y - centre[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    a, b, c = semi_axes
    return 2 * c * np.sqrt(np.clip(1 - (along / a) ** 2 - (across / b) ** 2, 0, 1))


def tube(x: np.ndarray, y: np.ndarray, start: Point, end: Point, radius: float) -> np.ndarray:
    """Path length along z through a straight round tube that lies in the film's plane, with round ends."""
    return radius * chord(distance_to_segment(x, y, start, end), radius)


def shell(x: np.ndarray, y: np.ndarray, start: Point, end: Point, radius: float) -> np.ndarray:
    """As `tube`, the cortex of a long bone: its marrow cavity counts for little."""
    distance = distance_to_segment(x, y, start, end)
    return radius * (chord(distance, radius) - 0.5 * chord(distance, 0.7 * radius))


def distance_to_segment(x: np.ndarray, y: np.ndarray, start: Point, end: Point) -> np.ndarray:
    """Distance from the segment between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def chord(distance: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """Chord of a circle of `radius`, in radii: 2 sqrt(1 - (d/r)^2)."""
    return 2 * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))


def around(x: np.ndarray, y: np.ndarray, low: Point, high: Point, margin: float) -> tuple[slice, slice]:
    """The part of the film that holds the box between two corners: most bodies are small."""
    # x and y are affine in the pixel's place, so a row's or a column's ends say how far it reaches
    in_y = _reaches(y[:, 0], y[:, -1], min(low[1], high[1]) - margin, max(low[1], high[1]) + margin)
    in_x = _reaches(x[0], x[-1], min(low[0], high[0]) - margin, max(low[0], high[0]) + margin)
    return in_y, in_x


def _reaches(one_end: np.ndarray, other_end: np.ndarray, low: float, high: float) -> slice:
    hits = np.flatnonzero((np.maximum(one_end, other_end) > low) & (np.minimum(one_end, other_end) < high))
    return slice(hits[0], hits[-1] + 1) if len(hits) else slice(0, 0)
