"""The pneumonia challenge's score, image by image and pair by pair, in plain Python and exact fractions."""

from fractions import Fraction

THRESHOLDS = [Fraction(40 + 5 * k, 100) for k in range(8)]


def overlap(a, b) -> Fraction:
    """Intersection over union of two boxes: left, top, right, bottom."""
    a, b = [Fraction(v) for v in a], [Fraction(v) for v in b]
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = wide * high if wide > 0 and high > 0 else Fraction(0)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / either if either else Fraction(0)


def image_score(predicted, true, confidence) -> float | None:
    """The score of one image, or None if it does not count. `predicted`: (confidence, box) pairs."""
    reported = [pair for pair in predicted if pair[0] > confidence]
    if not true:
        return 0.0 if reported else None
    reported.sort(key=lambda pair: pair[0], reverse=True)  # stable: ties as given
    total = Fraction(0)
    for threshold in THRESHOLDS:
        left = list(range(len(true)))
        hits = 0
        for _, box in reported:
            best, best_overlap = None, threshold
            for g in left:
                if overlap(box, true[g]) > best_overlap:
                    best, best_overlap = g, overlap(box, true[g])
            if best is not None:
                left.remove(best)
                hits += 1
        misses = len(true) - hits
        wrong = len(reported) - hits
        total += Fraction(hits, hits + wrong + misses)
    return float(total / len(THRESHOLDS))


def mean_score(predictions, boxes, confidence) -> float | None:
    """The mean score of the images that count, or None if none counts."""
    scores = [image_score(p, t, confidence) for p, t in zip(predictions, boxes, strict=True)]
    counted = [score for score in scores if score is not None]
    return sum(counted) / len(counted) if counted else None
