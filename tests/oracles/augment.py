"""Cutout, pixel by pixel."""


def cut_out(image, centres, side):
    """A copy of an image (rows of numbers) with a square hole about each (row, column) centre set to 0."""
    result = [list(row) for row in image]
    for centre_row, centre_column in centres:
        for row in range(len(image)):
            for column in range(len(image[row])):
                down, right = row - (centre_row - side // 2), column - (centre_column - side // 2)
                if 0 <= down < side and 0 <= right < side:
                    result[row][column] = 0.0
    return result
