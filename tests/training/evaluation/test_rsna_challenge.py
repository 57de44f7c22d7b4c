"""The challenge's score: cases computed by hand, and random cases compared with an explicit loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import challenge as oracle

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.rsna_challenge import CONFIDENCES, DetectedBoxes, image_scores

BOX, FAR = (0, 0, 100, 100), (300, 300, 400, 400)


def predicted(*pairs) -> DetectedBoxes:
    return DetectedBoxes(
        np.array([box for _, box in pairs], float).reshape(-1, 4), np.array([score for score, _ in pairs], float)
    )


def mean_score(found, boxes, confidence) -> float:
    """The challenge's score: the mean over the images that are not ignored."""
    scores = image_scores(found, boxes, np.array([confidence]))
    return np.nan if np.isnan(scores).all() else np.nanmean(scores)


def true(*boxes) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)


NEAR = (0, 0, 100, 62)  # IoU 0.62 with BOX: a hit at 0.40 … 0.60, five of eight thresholds


@pytest.mark.parametrize(
    ("found", "boxes", "expected"),
    [
        ([(0.9, BOX)], [BOX], 1),
        ([(0.9, NEAR)], [BOX], 5 / 8),
        ([(0.9, (0, 0, 100, 60))], [BOX], 4 / 8),  # IoU is 0.60: not greater than that threshold
        ([(0.9, BOX), (0.8, FAR)], [BOX], 1 / 2),  # TP 1, FP 1
        ([(0.9, BOX)], [BOX, FAR], 1 / 2),  # TP 1, FN 1
        ([(0.9, BOX), (0.8, BOX)], [BOX], 1 / 2),  # the same box again: a false positive
        ([(0.9, BOX), (0.8, BOX)], [BOX, BOX], 1),  # two identical true boxes
        ([(0.9, NEAR), (0.8, BOX)], [BOX], (5 * 1 / 2 + 3 * 1 / 2) / 8),  # the more confident one is matched first
        ([(0.8, BOX), (0.9, NEAR)], [BOX], (5 * 1 / 2 + 3 * 1 / 2) / 8),  # in any order of the list
        ([], [BOX], 0),
        ([(0.5, BOX)], [BOX], 0),  # confidence not above 0.5
        ([(0.9, FAR)], [], 0),
        ([], [], math.nan),
        ([(0.4, FAR)], [], math.nan),
        ([(0.9, (5, 5, 5, 50))], [BOX], 0),  # no area
        ([(0.9, (5, 5, 5, 5))], [(5, 5, 5, 5)], 0),  # 0 / 0
        ([(0.9, (-50, 0, 100, 100))], [BOX], 6 / 8),  # reaches out of the image: IoU 2/3
    ],
)
def test_one_image_counted_by_hand(found, boxes, expected):
    assert mean_score([predicted(*found)], [true(*boxes)], 0.5) == pytest.approx(expected, nan_ok=True)


def test_a_surer_prediction_takes_the_box_that_another_needs():
    """The more confident prediction is matched first, to the box that the other prediction would need."""
    left, right = (0, 0, 100, 100), (0, 40, 100, 140)
    between, exact = (0, 10, 100, 110), (0, 0, 100, 100)  # `between`: IoU 90/110 with left, 70/130 with right
    # A different matching would hit both boxes up to 0.50. In order of confidence, `exact` can only be matched to
    # `right`, with IoU 60/140: a hit at 0.40 only.
    expected = (1 * 2 / 2 + 7 * 1 / 3) / 8
    assert mean_score([predicted((0.9, between), (0.8, exact))], [true(left, right)], 0.5) == pytest.approx(expected)


def test_images_are_averaged_but_those_left_out():
    found = [predicted((0.9, BOX)), predicted(), predicted(), predicted((0.9, BOX))]
    boxes = [true(BOX), true(BOX), true(), true()]
    assert mean_score(found, boxes, 0.5) == pytest.approx(1 / 3)
    assert mean_score(found, boxes, 0.95) == 0  # the last image is ignored, the first two have no prediction
    assert math.isnan(mean_score([], [], 0.5))


corner = st.integers(-2, 8)
side = st.integers(0, 6)
a_box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
image = st.tuples(
    st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.5, 0.7, 0.9]), a_box), max_size=6),
    st.lists(a_box, max_size=4),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(image, min_size=1, max_size=4))
def test_against_an_explicit_loop(images):
    """Small integers produce many equal confidences, equal overlaps, empty boxes and overlaps at a threshold."""
    found, boxes = [pairs for pairs, _ in images], [of_image for _, of_image in images]
    scores = image_scores([predicted(*pairs) for pairs in found], [true(*b) for b in boxes], CONFIDENCES)
    for k in (0, 3, 6):
        confidence = CONFIDENCES[k]
        expected = [oracle.image_score(*pair, confidence) for pair in zip(found, boxes, strict=True)]
        np.testing.assert_allclose(scores[:, k], [math.nan if w is None else w for w in expected], atol=1e-12)
        mean = oracle.mean_score(found, boxes, confidence)
        got = mean_score([predicted(*pairs) for pairs in found], [true(*b) for b in boxes], float(confidence))
        assert got == pytest.approx(math.nan if mean is None else mean, nan_ok=True)


@pytest.mark.parametrize(
    ("found", "boxes", "message"),
    [
        ([], [true(BOX)], "expected the same images, found predictions of 0 and boxes of 1"),
        (
            [DetectedBoxes(np.zeros((1, 4)), np.zeros(2))],
            [true()],
            r"image 0: expected boxes \[n, 4\], .* found \[\(1, 4\), \(2,\), \(0, 4\)\]",
        ),
        ([predicted((math.nan, BOX))], [true()], "image 0: expected finite boxes and scores, found NaN"),
    ],
)
def test_refuses_what_does_not_fit(found, boxes, message):
    with pytest.raises(C2LError, match=message):
        mean_score(found, boxes, 0.5)
