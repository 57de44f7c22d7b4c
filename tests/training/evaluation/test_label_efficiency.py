"""The label-efficiency plot shows the given points, intervals and names."""

import numpy as np
import pytest

from c2l_models.errors import C2LError
from c2l_models.training.evaluation import label_efficiency
from c2l_models.training.evaluation.intervals import Estimate
from c2l_models.training.evaluation.label_efficiency import draw_label_efficiency
from c2l_models.training.evaluation.plotting import save_png

NOTHING = Estimate(np.nan, np.nan, np.nan)
STARTS = {
    "this start": {1.0: Estimate(0.8, 0.7, 0.85), 0.01: Estimate(0.6, 0.5, 0.7), 0.1: Estimate(0.7, 0.6, 0.75)},
    "that start": {0.01: Estimate(0.55, 0.5, 0.6), 1.0: NOTHING},
    "a third": {0.1: NOTHING},
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    def noted(figure, path):
        figures.append(figure)
        return save_png(figure, path)

    monkeypatch.setattr(label_efficiency, "save_png", noted)
    return figures


def test_every_start_has_its_points_and_intervals(tmp_path, drawn):
    path = draw_label_efficiency(STARTS, tmp_path / "few.png", "chestxray14, mean")
    assert path.read_bytes().startswith(b"\x89PNG")
    [figure] = drawn
    [axes] = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["this start", "that start", "a third: n/a"]
    np.testing.assert_allclose(lines["this start"].get_ydata(), [0.6, 0.7, 0.8])
    np.testing.assert_allclose(lines["this start"].get_xdata(), [0.01, 0.1, 1], rtol=0.1)
    np.testing.assert_allclose(lines["that start"].get_ydata(), [0.55])
    assert len(lines["a third: n/a"].get_xdata()) == 0
    intervals = [[segment[:, 1].tolist() for segment in of.get_segments()] for of in axes.collections]
    assert intervals == [[[0.5, 0.7], [0.6, 0.75], [0.7, 0.85]], [[0.5, 0.6]], []]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1 %", "10 %", "100 %"]


def test_points_at_one_share_lie_side_by_side_and_within_the_axis(tmp_path, drawn):
    starts = {f"start {i}": {share: Estimate(0.7, 0.6, 0.8) for share in (0.1, 1.0)} for i in range(9)}
    draw_label_efficiency(starts, tmp_path / "nine.png", "nine")
    [axes] = drawn[0].axes
    where = np.array([line.get_xdata() for line in axes.get_lines()])
    assert (np.diff(where, axis=0) > 0).all()
    low, high = axes.get_xlim()
    assert low < where.min() < where.max() < high
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}) == 9


def test_numbers_of_images(tmp_path, drawn):
    starts = {"a start": {5: Estimate(0.6, 0.5, 0.7), 500: Estimate(0.7, 0.6, 0.8)}}
    draw_label_efficiency(starts, tmp_path / "images.png", "", against="images")
    [axes] = drawn[0].axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "500"]
    assert axes.get_xlabel() == "labelled training images"


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({}, "expected shares of labels"),
        ({"in percent": {10: NOTHING}}, "above 0 and up to 1"),
        ({"none": {0.0: NOTHING}}, "above 0 and up to 1"),
        ({str(i): {1.0: NOTHING} for i in range(19)}, "expected at most 18 initializations in one plot, found 19"),
    ],
)
def test_refusals(tmp_path, starts, message):
    with pytest.raises(C2LError, match=message):
        draw_label_efficiency(starts, tmp_path / "no.png", "")
