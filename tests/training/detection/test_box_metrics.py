"""A detector's metrics: intervals by explicit resampling, COCO's AP on cases with a known answer."""

import numpy as np
import pytest
from oracles import challenge as oracle

from c2l_models.training.detection.box_metrics import measure_boxes
from c2l_models.training.evaluation.intervals import draw_patients
from c2l_models.training.evaluation.rsna_challenge import DetectedBoxes


def sample(seed=0, images=12):
    """Noisy detections in images with 0, 1 or 2 boxes; two images per patient."""
    rng = np.random.default_rng(seed)
    boxes, predictions = [], []
    for number in range(images):
        corner = rng.integers(0, 200, (number % 3, 2)).astype(float)
        of_image = np.concatenate([corner, corner + rng.integers(60, 120, corner.shape)], axis=1)
        wrong = np.array([[300, 300, 380, 390]])
        found = np.concatenate([of_image + rng.normal(0, 8, of_image.shape), wrong])
        boxes.append(of_image)
        predictions.append(DetectedBoxes(found, rng.random(len(found))))
    return predictions, boxes, np.array([f"p{i // 2}" for i in range(images)])


def test_intervals_are_those_of_whole_patients_drawn_one_by_one():
    predictions, boxes, patients = sample()
    metrics = measure_boxes(predictions, boxes, patients, bootstrap=20, seed=3)
    counts, rows = draw_patients(patients, 20, 3)
    pairs = [list(zip(p.scores, p.boxes.tolist(), strict=True)) for p in predictions]
    for r in range(20):
        drawn = [i for i in range(len(boxes)) for _ in range(int(counts[rows[i], r]))]
        for name, confidence in (("mAP at 0.2", 0.2), ("mAP at 0.8", 0.8)):
            expected = oracle.mean_score([pairs[i] for i in drawn], [boxes[i].tolist() for i in drawn], confidence)
            got = metrics.resamples[r, metrics.names.index(name)]
            assert got == pytest.approx(np.nan if expected is None else expected, nan_ok=True)
    found = metrics["mAP at 0.5"]
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(oracle.mean_score(pairs, [b.tolist() for b in boxes], 0.5))


def test_figures_of_one_sample_can_be_paired_and_others_not():
    predictions, boxes, patients = sample()
    one = measure_boxes(predictions, boxes, patients, bootstrap=50)
    worse = measure_boxes([DetectedBoxes(p.boxes + 15, p.scores) for p in predictions], boxes, patients, bootstrap=50)
    assert worse.minus(one, "mAP at 0.2").value < 0
    assert measure_boxes(predictions, [b + 1 for b in boxes], patients, bootstrap=50).sample != one.sample
    assert measure_boxes(predictions, boxes, patients[::-1], bootstrap=50).sample != one.sample
    assert [name for name in one.names if name.startswith("mAP")] == [f"mAP at 0.{k}" for k in range(2, 9)]


def test_coco_figures_have_a_value_and_no_interval():
    _, boxes, patients = sample()
    right = [DetectedBoxes(b, np.full(len(b), 0.9)) for b in boxes]
    metrics = measure_boxes(right, boxes, patients, bootstrap=10)
    assert metrics["COCO AP"].value == metrics["COCO AP50"].value == 1
    assert np.isnan(metrics["COCO AP"].low)
    assert str(metrics["COCO AP"]) == "1.000"
    # Each found box is 0.62 of the true one: right at IoU 0.50, 0.55 and 0.60 of COCO's ten thresholds.
    near = [
        DetectedBoxes(
            b * [1, 1, 1, 0] + np.stack([0 * b[:, 0]] * 3 + [b[:, 1] + 0.62 * (b[:, 3] - b[:, 1])], 1), p.scores
        )
        for b, p in zip(boxes, right, strict=True)
    ]
    metrics = measure_boxes(near, boxes, patients, bootstrap=0)
    assert (metrics["COCO AP"].value, metrics["COCO AP50"].value) == (pytest.approx(0.3), 1)


def test_no_box_at_all_is_no_figure():
    predictions, _, patients = sample()
    metrics = measure_boxes(predictions, [np.empty((0, 4))] * len(predictions), patients, bootstrap=5)
    assert np.isnan(metrics.values).all()
    assert np.isnan(metrics.resamples).all()
