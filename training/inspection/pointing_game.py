"""Pointing game: how often the maximum of an activation map lies inside the finding's box.

Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016. They add a margin around the box;
here it has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Difference, Estimate, Floats, bootstrap_patients, estimate_from_resamples
from .cams import BoxedFinding, Cam

OVERALL = "all_findings"
RULES = ("map", "chance", "centre")
"""Rules that choose a point: the map's largest cell, a random point of the image, the centre of the image."""


@dataclass(frozen=True)
class HitRates:
    """Share of points inside the box, by finding and rule.

    Attributes:
        names: the findings, then `OVERALL` for all findings together, [F].
        images, patients: number of images and patients, [F]. An image counts once for each finding that has a box.
        values: float64 [F, 3], one column per rule.
        resamples: float64 [R, F, 3], values on resamples of whole patients.
        jackknife: float64 [P, F, 3], values without each patient.
    """

    names: tuple[str, ...]
    images: list[int]
    patients: list[int]
    values: Floats
    resamples: Floats
    jackknife: Floats

    def rate(self, name: str, rule: str) -> Estimate:
        """Share of a rule's points inside the box, for one finding or `OVERALL`, with its interval."""
        row, column = self.names.index(name), RULES.index(rule)
        return estimate_from_resamples(
            float(self.values[row, column]), self.resamples[:, row, column], self.jackknife[:, row, column]
        )

    def map_minus(self, name: str, rule: str) -> Difference:
        """Share of the rule "map" minus the share of another rule, paired by resample."""
        row, column = self.names.index(name), RULES.index(rule)
        found = estimate_from_resamples(
            float(self.values[row, 0] - self.values[row, column]),
            self.resamples[:, row, 0] - self.resamples[:, row, column],
            self.jackknife[:, row, 0] - self.jackknife[:, row, column],
        )
        return Difference(found.value, found.low, found.high)


def play_pointing_game(
    boxed: Sequence[BoxedFinding],
    cams: Sequence[Cam],
    patients: NDArray[np.str_],
    bootstrap: int = 1000,
    seed: int = 0,
) -> HitRates:
    """Compute the hit rates of all rules on findings with boxes.

    Args:
        boxed: N findings with boxes.
        cams: activation map of each finding.
        patients: patient of each finding's image, [N].
        bootstrap: number of resamples of whole patients.
        seed: seed of the resampling.
    """
    scores = np.array(
        [
            [is_inside(peak(cam.map), one.boxes), covered_share(one.boxes), is_inside((0.5, 0.5), one.boxes)]
            for one, cam in zip(boxed, cams, strict=True)
        ]
    )
    findings = np.array([one.finding for one in boxed])
    names = np.unique(findings).tolist()
    masks = np.array([*(findings == name for name in names), np.ones(len(boxed), bool)], dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        total = masks @ weights  # [F, K]
        sums = np.einsum("fn,nk,nv->kfv", masks, weights, scores, optimize=True)
        share = np.divide(sums, total.T[:, :, None], out=np.full(sums.shape, np.nan), where=total.T[:, :, None] > 0)
        return share.reshape(len(share), -1)

    values, resamples, jackknife = bootstrap_patients(statistic, patients, bootstrap, seed)
    shape = (len(masks), len(RULES))
    return HitRates(
        (*names, OVERALL),
        [int(mask.sum()) for mask in masks],
        [len(set(patients[mask > 0].tolist())) for mask in masks],
        values.reshape(shape),
        resamples.reshape(-1, *shape),
        jackknife.reshape(-1, *shape),
    )


def peak(activation: Floats) -> tuple[float, float]:
    """Centre of the largest cell of a map [h, w]: x and y as shares of the image's side."""
    height, width = activation.shape
    row, column = divmod(int(activation.argmax()), width)
    return (column + 0.5) / width, (row + 0.5) / height


def is_inside(point: tuple[float, float], boxes: Floats) -> bool:
    """Whether a point lies inside one of the boxes [n, 4], edges included."""
    x, y = point
    left, top, right, bottom = boxes.T
    return bool(np.any((left <= x) & (x <= right) & (top <= y) & (y <= bottom)))


def covered_share(boxes: Floats) -> float:
    """Share of the image that the boxes [n, 4] cover; overlaps count once."""
    xs, ys = (pairwise(np.unique(boxes[:, [edge, edge + 2]]).tolist()) for edge in (0, 1))
    cells = product(xs, ys)  # no edge of a box lies inside a cell, so a cell is covered if its centre is covered
    return sum(
        (x1 - x0) * (y1 - y0) for (x0, x1), (y0, y1) in cells if is_inside(((x0 + x1) / 2, (y0 + y1) / 2), boxes)
    )
