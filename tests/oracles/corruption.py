"""Model Genesis' transforms of one image, pixel by pixel; the curve from its formula, by bisection."""

import math


def shuffle(image, windows, keys):
    """Local pixel shuffling of a copy of an image (rows of numbers).

    A later window (top, left, height, width) covers earlier ones. Each window's visible pixels are ordered by their
    keys (one per pixel of the image, by rows).
    """
    seen = [[None] * len(row) for row in image]
    for number, (top, left, height, width) in enumerate(windows):
        for row in range(top, top + height):
            for column in range(left, left + width):
                seen[row][column] = number
    result = [list(row) for row in image]
    for number in range(len(windows)):
        places = [(r, c) for r in range(len(image)) for c in range(len(image[r])) if seen[r][c] == number]
        sources = sorted(places, key=lambda place: keys[place[0] * len(image) + place[1]])
        for (row, column), (from_row, from_column) in zip(places, sources, strict=True):
            result[row][column] = image[from_row][from_column]
    return result


def paint(image, blocks, outside, noise):
    """A copy of an image with noise in the blocks, or if `outside`, everywhere else."""
    result = [list(row) for row in image]
    for row in range(len(image)):
        for column in range(len(image[row])):
            inside = any(top <= row < top + h and left <= column < left + w for top, left, h, w in blocks)
            if inside != outside:
                result[row][column] = noise[row][column]
    return result


def curve(value, first, second, falls):
    """y at x = `value` of the cubic Bézier curve (0, 0), first, second, (1, 1).

    If it `falls`, y is taken at 1 - t instead of t.
    """

    def at(t, one, two):
        return sum(math.comb(3, k) * (1 - t) ** (3 - k) * t**k * p for k, p in enumerate((0, one, two, 1)))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle, first[0], second[0]) < value else (low, middle)
    return at(1 - low if falls else low, first[1], second[1])
