"""Axes: a flat curve is not zoomed."""

import numpy as np
import pytest

from c2l_models.training.evaluation.plotting import grid_shape, new_figure, widen


@pytest.mark.parametrize(("values", "expected"), [([0.61, 0.62], (0.565, 0.665)), ([0.5, 0.9], (0.48, 0.92))])
def test_an_axis_is_widened_about_its_middle(values: list[float], expected: tuple[float, float]) -> None:
    axes = new_figure(3, 3).add_subplot()
    axes.plot(values)
    widen(axes, 0.1)
    np.testing.assert_allclose(axes.get_ylim(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("panels", "expected"),
    [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (6, (2, 3)), (9, (3, 3)), (13, (4, 4)), (14, (4, 4))],
)
def test_a_grid_has_no_empty_row_and_few_empty_places(panels: int, expected: tuple[int, int]) -> None:
    rows, columns = grid_shape(panels, 4)
    assert (rows, columns) == expected
    assert rows * columns - panels < rows
