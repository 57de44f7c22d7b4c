"""The score of the RSNA Pneumonia Detection Challenge 2018, which table 5 calls mAP.

Of an image, the mean over the IoU thresholds 0.40, 0.45 … 0.75 of TP / (TP + FP + FN). Predictions are taken in the
order of their confidence; one is a true positive if its IoU with a box that none before it has taken is greater than
the threshold, and takes the one of these that it overlaps most. An image without boxes scores 0 if there is any
prediction, and is left out otherwise. (The challenge's own page, "Evaluation".) As in table 5, only predictions whose
confidence is higher than a threshold are reported.
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
"""Table 5's columns."""


@dataclass(frozen=True)
class DetectedBoxes:
    """What a detector says of one image.

    Attributes:
        boxes: float64 [n, 4]: left, top, right, bottom.
        scores: float64 [n], the confidence of each box.
    """

    boxes: Floats
    scores: Floats


def rsna_map(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats], confidence: float) -> float:
    """The challenge's score of N images, from 0 to 1; NaN where every image is left out.

    Args:
        predictions: one for each image, in any order of confidence; equal ones count in the order given.
        boxes: the true boxes of each image, [m, 4]: left, top, right, bottom, in the same coordinates.
        confidence: predictions that are no surer than this are dropped.

    Raises:
        C2LError: numbers of images, or shapes, that do not match, or values that are not finite.
    """
    scores = image_scores(predictions, boxes, np.array([confidence]))[:, 0]
    known = ~np.isnan(scores)
    return float(scores[known].mean()) if known.any() else float("nan")


def image_scores(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats], confidences: Floats) -> Floats:
    """The score of each of N images at each of C confidence thresholds, [N, C]; NaN where an image is left out.

    Arguments and errors are those of `rsna_map`.
    """
    _check(predictions, boxes)
    kept = [_surest_first(predicted, float(np.min(confidences))) for predicted in predictions]
    true = np.array([len(of_image) for of_image in boxes], dtype=np.int64)
    most = max((len(predicted.scores) for predicted in kept), default=0)
    overlap = np.zeros((len(boxes), most, max(true, default=0)))
    ranked = np.full((len(boxes), most), -np.inf)
    for i, (predicted, of_image) in enumerate(zip(kept, boxes, strict=True)):
        count = len(predicted.scores)
        overlap[i, :count, : len(of_image)] = box_iou(
            torch.from_numpy(predicted.boxes), torch.from_numpy(of_image)
        ).numpy()
        ranked[i, :count] = predicted.scores
    # What a prediction takes depends on surer ones alone: so the hits among the first k hold for any threshold.
    reported = (ranked[:, :, None] > confidences).sum(axis=1)  # [N, C]
    hits = _hits_so_far(overlap)[np.arange(len(boxes))[:, None], reported]  # [N, C, thresholds]: TP
    either = reported[..., None] + true[:, None, None] - hits  # TP + FP + FN
    scores: Floats = (hits / np.maximum(either, 1)).mean(axis=2)
    scores[(true[:, None] == 0) & (reported == 0)] = np.nan
    return scores


def _hits_so_far(overlap: Floats) -> NDArray[np.int64]:
    """True positives among the k surest predictions, [N, P + 1, thresholds], for the IoU [N, P, G] of each pair."""
    images, predictions, boxes = overlap.shape
    hits = np.zeros((images, predictions + 1, len(IOU_THRESHOLDS)), np.int64)
    if not boxes:
        return hits
    free = np.ones((images, len(IOU_THRESHOLDS), boxes), bool)
    for k in range(predictions):
        near = overlap[:, k, None, :]
        matches = np.where(free & (near > IOU_THRESHOLDS[:, None]), near, 0)  # [N, thresholds, G]
        taken = matches.argmax(axis=2)[..., None]
        hit = np.take_along_axis(matches, taken, 2) > 0
        np.put_along_axis(free, taken, np.take_along_axis(free, taken, 2) & ~hit, 2)
        hits[:, k + 1] = hits[:, k] + hit[..., 0]
    return hits


def _surest_first(predicted: DetectedBoxes, above: float) -> DetectedBoxes:
    order = np.argsort(-predicted.scores, kind="stable")
    order = order[predicted.scores[order] > above]
    return DetectedBoxes(predicted.boxes[order], predicted.scores[order])


def _check(predictions: Sequence[DetectedBoxes], boxes: Sequence[Floats]) -> None:
    if len(predictions) != len(boxes):
        raise C2LError(f"predictions of {len(predictions)} images, boxes of {len(boxes)}; wanted the same images")
    for i, (predicted, of_image) in enumerate(zip(predictions, boxes, strict=True)):
        shapes = [np.shape(predicted.boxes), np.shape(predicted.scores), np.shape(of_image)]
        if shapes != [(len(predicted.scores), 4), (len(predicted.scores),), (len(of_image), 4)]:
            raise C2LError(f"image {i}: boxes, scores and true boxes are {shapes}; wanted [n, 4], [n] and [m, 4]")
        if not all(np.isfinite(part).all() for part in (predicted.boxes, predicted.scores, of_image)):
            raise C2LError(f"image {i}: boxes or scores that are not finite (NaN or infinity)")
