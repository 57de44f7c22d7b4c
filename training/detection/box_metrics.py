"""Metrics of detected boxes: the challenge's mAP with patient-level intervals, and COCO's AP."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision

from ..evaluation.arrays import sample_fingerprint
from ..evaluation.intervals import Floats, bootstrap_patients
from ..evaluation.metrics import Metrics
from ..evaluation.rsna_challenge import CONFIDENCES, DetectedBoxes, image_scores

MAP_NAMES = tuple(f"mAP at {confidence:.1f}" for confidence in CONFIDENCES)
COCO_NAMES = ("COCO AP", "COCO AP50")


def measure_boxes(
    predictions: Sequence[DetectedBoxes],
    boxes: Sequence[Floats],
    patients: NDArray[np.str_],
    bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Compute the metrics of N images: "mAP at 0.2" … "mAP at 0.8", "COCO AP", "COCO AP50".

    A resample draws whole patients. A mAP is the mean over the images that have a score, each weighted by the number of
    times its patient was drawn. COCO's metrics have no interval (their resamples are NaN), because each resample would
    need COCO's whole evaluation. If no image has a box, every metric is NaN.

    Args:
        predictions, boxes: the detected and the true boxes of each image, as `rsna_challenge.image_scores` takes them.
        patients: patient id of each image, [N].
        bootstrap: number of resamples R.
        seed: seed of the resampling.
    """
    scores = image_scores(predictions, boxes, CONFIDENCES)
    if not any(map(len, boxes)):
        scores = np.full_like(scores, np.nan)
    known = (~np.isnan(scores)).astype(np.float64)
    scores = np.nan_to_num(scores)

    def mean(weights: Floats) -> Floats:
        counted = weights.T @ known
        return np.divide(weights.T @ scores, counted, out=np.full(counted.shape, np.nan), where=counted > 0)

    found, coco = bootstrap_patients(mean, patients, bootstrap, seed), coco_ap(predictions, boxes)
    resamples, jackknife = (
        np.concatenate([each, np.full((len(each), len(coco)), np.nan)], axis=1)
        for each in (found.resamples, found.jackknife)
    )
    return Metrics(
        MAP_NAMES + COCO_NAMES,
        np.concatenate([found.values, coco]),
        resamples,
        sample_fingerprint(
            (bootstrap, seed, [len(of_image) for of_image in boxes]),
            np.concatenate([np.empty((0, 4)), *boxes]),
            patients.tolist(),
        ),
        jackknife=jackknife,
    )


def coco_ap(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats]) -> Floats:
    """COCO's AP (over IoU 0.50 … 0.95) and AP50, [2], of one class; NaN if no image has a box."""
    if not any(map(len, boxes)):
        return np.full(2, np.nan)
    metric = MeanAveragePrecision()
    metric.warn_on_many_detections = False  # COCO's limit of 100 boxes per image is intended
    for predicted, of_image in zip(predictions, boxes, strict=True):
        found = {"boxes": _tensor(predicted.boxes), "scores": _tensor(predicted.scores)}
        metric.update([_one_class(found)], [_one_class({"boxes": _tensor(of_image)})])
    result = metric.compute()
    return np.array([float(result["map"]), float(result["map_50"])])


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values).float()


def _one_class(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return found | {"labels": torch.zeros(len(found["boxes"]), dtype=torch.int64)}
