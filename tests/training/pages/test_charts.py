"""Coordinates and ticks of charts, by hand."""

import math

import pytest

from c2l_models.training.evaluation.intervals import Difference, Estimate
from c2l_models.training.pages.charts import LEFT, TOP, Chart, Line
from c2l_models.training.pages.report import STRIP, Facts, Table


def test_a_square_chart_has_its_corners_at_the_limits():
    line = Line("", [0, 0.5, 1], [0, 1, 1])
    chart = Chart("label", "x", "y", [line], (0, 1), (0, 1), square=True)
    assert chart.path(line) == f"{LEFT},{TOP + 206} {LEFT + 103},{TOP} {LEFT + 206},{TOP}"
    assert [text for _, text in chart.ticks[0]] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.61, 0.84], (0.6, 0.85)), ([-3.2, 1.9], (-4, 2)), ([7, 7], (2, 12)), ([0.012, 0.03], (0.01, 0.03))],
)
def test_the_y_axis_ends_at_ticks_around_the_values(values, ends):
    chart = Chart("", "x", "y", [Line("", range(len(values)), values)])
    low, high = chart.y_range
    assert low <= min(values)
    assert high >= max(values)
    assert (low, high) == pytest.approx(ends)


def test_a_logarithmic_axis():
    line = Line("", [10, 100, 1000], [0, 0, 0])
    chart = Chart("", "x", "y", [line], (10, 1000), (0, 1), x_ticks=(10, 100, 1000), log=True)
    assert [float(at) - LEFT for at, _ in chart.ticks[0]] == [0, 150, 300]


def test_values_that_are_not_finite_are_left_out():
    line = Line("", [0, 1, 2], [0.5, math.nan, 0.6], low=[0.4, math.nan, 0.5], high=[0.6, math.nan, 0.7])
    chart = Chart("", "x", "y", [line])
    assert len(chart.path(line).split()) == 2
    assert len(chart.whiskers(line)) == 2
    assert Chart("", "x", "y", [Line("", [0], [math.nan])]).y_range[0] < 1


def test_intervals_of_a_table_share_one_scale():
    table = Table("", ["", ""], [["a", Estimate(0.62, 0.51, 0.74)], ["b", Estimate(0.4, 0.31, 0.5)], ["c", "text"]])
    assert table.scale == pytest.approx((0.3, 0.75))
    assert float(table.at(0.525)) == pytest.approx(STRIP / 2)
    differences = Table("", ["", ""], [["a", Difference(0.02, 0.01, 0.03)]], 0.0)
    assert differences.scale == pytest.approx((0, 0.05))


def test_facts_are_flat():
    facts = Facts("", {"a_b": {"c": True, "d": [1, 2], "e": ["x", "y"]}, "f": None, "g": [], "h": ""})
    expected = [("a_b: c", ["yes"]), ("a_b: d", ["1, 2"]), ("a_b: e", ["x", "y"]), ("f", ["unknown or none"])]
    assert facts.lines == [*expected, ("g", ["–"]), ("h", ["–"])]
