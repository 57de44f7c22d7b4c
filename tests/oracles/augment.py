"""Cutout and jigsaw, pixel by pixel."""


def cut_out(image, centres, side):
    """A copy of an image (rows of numbers) in which the square hole around each (row, column) centre is 0."""
    result = [list(row) for row in image]
    for centre_row, centre_column in centres:
        for row in range(len(image)):
            for column in range(len(image[row])):
                down, right = row - (centre_row - side // 2), column - (centre_column - side // 2)
                if 0 <= down < side and 0 <= right < side:
                    result[row][column] = 0.0
    return result


def jigsaw(image, tiles):
    """A copy of a square image (rows of numbers) with tile `tiles[i]` at place i of 3 x 3, counted row by row.

    Tiles are as large as three fit in a row. The border does not move. Left and above it is as wide as right and below,
    or one pixel narrower.
    """
    result = [list(row) for row in image]
    side = len(image) // 3
    border = (len(image) - 3 * side) // 2
    for place, tile in enumerate(tiles):
        for row in range(side):
            for column in range(side):
                source = image[border + tile // 3 * side + row][border + tile % 3 * side + column]
                result[border + place // 3 * side + row][border + place % 3 * side + column] = source
    return result
