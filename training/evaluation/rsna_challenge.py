"""Score of the RSNA Pneumonia Detection Challenge 2018, which the paper's table 5 calls mAP.

The score of an image is the mean of TP / (TP + FP + FN) over the IoU thresholds 0.40, 0.45 … 0.75. Predictions are
matched in descending order of confidence. A prediction is a true positive if its IoU with an unmatched true box is
greater than the threshold; it is matched to the unmatched box with the largest IoU. An image without true boxes scores
0 if it has any prediction, and is ignored otherwise. (Source: the challenge's page, "Evaluation".) As in table 5,
predictions count only if their confidence is above a threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from c2l_models.errors import C2LError

from .intervals import Floats

IOU_THRESHOLDS: Floats = np.arange(40, 80, 5) / 100
CONFIDENCES: Floats = np.arange(2, 9) / 10
"""Confidence thresholds: the columns of table 5."""


@dataclass(frozen=True)
class DetectedBoxes:
    """Boxes that a detector found in one image.

    Attributes:
        boxes: float64 [n, 4]: left, top, right, bottom.
        scores: float64 [n], confidence of each box.
    """

    boxes: Floats
    scores: Floats


def image_scores(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats], confidences: Floats) -> Floats:
    """Score of each of N images at each of C confidence thresholds, from 0 to 1, [N, C]; NaN if the image is ignored.

    The challenge's score is the mean over the images that are not ignored.

    Args:
        predictions: detected boxes of each image, in any order. Boxes of equal confidence are matched as listed.
        boxes: true boxes of each image, [m, 4]: left, top, right, bottom, in the same coordinates.
        confidences: thresholds; detected boxes count only if their confidence is above it.

    Raises:
        C2LError: numbers of images or shapes that do not match, or values that are not finite.
    """
    _check(predictions, boxes)
    kept = [_by_confidence(detected, float(np.min(confidences))) for detected in predictions]
    num_true = np.array([len(true) for true in boxes], dtype=np.int64)
    most = max((len(detected.scores) for detected in kept), default=0)
    overlap = np.zeros((len(boxes), most, max(num_true, default=0)))  # IoU
    ranked = np.full((len(boxes), most), -np.inf)  # confidences
    for i, (detected, true) in enumerate(zip(kept, boxes, strict=True)):
        count = len(detected.scores)
        overlap[i, :count, : len(true)] = box_iou(torch.from_numpy(detected.boxes), torch.from_numpy(true)).numpy()
        ranked[i, :count] = detected.scores
    # Whether a prediction is a hit depends only on predictions of higher confidence. The number of hits among the k
    # most confident predictions is therefore the same for every confidence threshold.
    num_predicted = (ranked[:, :, None] > confidences).sum(axis=1)  # [N, C]
    hits = _hits_of_first(overlap)[np.arange(len(boxes))[:, None], num_predicted]  # [N, C, thresholds]: TP
    total = num_predicted[..., None] + num_true[:, None, None] - hits  # TP + FP + FN
    scores: Floats = (hits / np.maximum(total, 1)).mean(axis=2)
    scores[(num_true[:, None] == 0) & (num_predicted == 0)] = np.nan
    return scores


def _hits_of_first(overlap: Floats) -> NDArray[np.int64]:
    """True positives among the k most confident predictions, k = 0 to P: IoU [N, P, G] -> [N, P + 1, thresholds]."""
    images, predictions, boxes = overlap.shape
    hits = np.zeros((images, predictions + 1, len(IOU_THRESHOLDS)), np.int64)
    if not boxes:
        return hits
    free = np.ones((images, len(IOU_THRESHOLDS), boxes), bool)
    for k in range(predictions):
        iou = overlap[:, k, None, :]
        matches = np.where(free & (iou > IOU_THRESHOLDS[:, None]), iou, 0)  # [N, thresholds, G]
        taken = matches.argmax(axis=2)[..., None]
        hit = np.take_along_axis(matches, taken, 2) > 0
        np.put_along_axis(free, taken, np.take_along_axis(free, taken, 2) & ~hit, 2)
        hits[:, k + 1] = hits[:, k] + hit[..., 0]
    return hits


def _by_confidence(detected: DetectedBoxes, above: float) -> DetectedBoxes:
    """The boxes with confidence above a threshold, most confident first."""
    order = np.argsort(-detected.scores, kind="stable")
    order = order[detected.scores[order] > above]
    return DetectedBoxes(detected.boxes[order], detected.scores[order])


def _check(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats]) -> None:
    if len(predictions) != len(boxes):
        raise C2LError(f"expected the same images, found predictions of {len(predictions)} and boxes of {len(boxes)}")
    for i, (detected, true) in enumerate(zip(predictions, boxes, strict=True)):
        shapes = [np.shape(detected.boxes), np.shape(detected.scores), np.shape(true)]
        if shapes != [(len(detected.scores), 4), (len(detected.scores),), (len(true), 4)]:
            raise C2LError(f"image {i}: expected boxes [n, 4], scores [n] and true boxes [m, 4], found {shapes}")
        if not all(np.isfinite(part).all() for part in (detected.boxes, detected.scores, true)):
            raise C2LError(f"image {i}: expected finite boxes and scores, found NaN or infinity")
