"""Hit rates of the pointing game, computed by hand."""

import numpy as np
import pytest

from c2l_models.training.inspection.cams import BoxedFinding, Cam
from c2l_models.training.inspection.pointing_game import OVERALL, covered_share, is_inside, peak, play_pointing_game

CENTRE = np.array([[0.4, 0.4, 0.6, 0.6]])  # 4 % of the film
LEFT = np.array([[0.0, 0.0, 0.25, 1.0]])  # 25 %


def test_the_peak_is_the_centre_of_the_largest_cell():
    assert peak(np.array([[0.0, 1, 0], [0, 0, 5]])) == (pytest.approx(5 / 6), 0.75)
    assert peak(np.array([[-1.0, -2], [-3, -4]])) == (0.25, 0.25)


def test_a_point_is_in_any_of_the_boxes_edges_included():
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1, 1]])
    assert [is_inside(point, boxes) for point in [(0.1, 0.4), (0.2, 0.5), (0.75, 0.6), (0.4, 0.3), (0.6, 0.3)]] == [
        *(True, False, True, False, False)
    ]


def test_what_boxes_share_is_counted_once():
    assert covered_share(LEFT) == pytest.approx(0.25)
    assert covered_share(np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]])) == pytest.approx(0.25 + 0.25 - 0.0625)
    assert covered_share(np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])) == pytest.approx(0.5)


@pytest.fixture
def game():
    """Three masses of two patients, two of them hits; one nodule, no hit."""
    left, right, middle = (np.array([row], np.float64) for row in ([9, 0, 1, 0], [0, 0, 1, 2], [0, 3, 0]))
    boxed = [
        BoxedFinding(0, "Mass", LEFT),
        BoxedFinding(1, "Mass", LEFT),
        BoxedFinding(2, "Mass", CENTRE),
        BoxedFinding(0, "Nodule", CENTRE),
    ]
    cams = [Cam(found, 0.5) for found in (left, right, middle, left)]
    return play_pointing_game(boxed, cams, np.array(["a", "a", "b", "a"]), bootstrap=400, seed=0)


def test_shares_of_hits(game):
    assert game.names == ("Mass", "Nodule", OVERALL)
    assert (game.images, game.patients) == ([3, 1, 4], [2, 1, 2])
    expected = {
        "Mass": {"map": 2 / 3, "chance": (0.25 + 0.25 + 0.04) / 3, "centre": 1 / 3},
        "Nodule": {"map": 0, "chance": 0.04, "centre": 1},
        OVERALL: {"map": 2 / 4, "chance": 0.58 / 4, "centre": 2 / 4},
    }
    for name, rules in expected.items():
        for rule, value in rules.items():
            assert game.rate(name, rule).value == pytest.approx(value), (name, rule)
    assert game.map_minus("Mass", "centre").value == pytest.approx(1 / 3)
    assert game.map_minus(OVERALL, "chance").value == pytest.approx(0.5 - 0.145)


def test_resamples_are_of_whole_patients(game):
    """Patient a twice, b twice, or each once: hit rates of masses 1/2, 1, 2/3; no nodule without patient a."""
    masses, nodules = game.resamples[:, 0, 0], game.resamples[:, 1, 0]
    assert {round(float(share), 6) for share in masses} == {0.5, 0.666667, 1}
    assert np.isnan(nodules[masses == 1]).all()
    assert (nodules[masses < 1] == 0).all()
    assert (game.rate("Mass", "map").low, game.rate("Mass", "map").high) == (0.5, 1)
    # Paired: if only b is drawn, the centre is a hit too.
    assert game.map_minus("Mass", "centre").low == 0
