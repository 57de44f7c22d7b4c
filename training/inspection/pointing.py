"""The pointing game: how often a map is largest inside the finding's box.

Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, without their margin around the box.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Difference, Estimate, Floats, bootstrap_patients, estimate_from_resamples
from .cams import Boxed, Cam

OVERALL = "all findings"
RULES = ("map", "chance", "centre")
"""What points: the map's largest cell, a place drawn from the whole film, and the film's centre."""


@dataclass(frozen=True)
class Pointing:
    """How often each rule points into the box.

    Attributes:
        names: the findings, and last what is of all of them, [F].
        films, patients: how many, [F]; a film counts once for each finding that has a box.
        values: float64 [F, 3], a column a rule.
        resamples: float64 [R, F, 3], the same on resamples of whole patients.
    """

    names: tuple[str, ...]
    films: list[int]
    patients: list[int]
    values: Floats
    resamples: Floats

    def figure(self, name: str, rule: str) -> Estimate:
        """A rule's share of hits for a finding, and its interval."""
        row, column = self.names.index(name), RULES.index(rule)
        return estimate_from_resamples(float(self.values[row, column]), self.resamples[:, row, column])

    def gain(self, name: str, over: str) -> Difference:
        """The map's share minus another rule's, paired."""
        row, column = self.names.index(name), RULES.index(over)
        found = estimate_from_resamples(
            float(self.values[row, 0] - self.values[row, column]),
            self.resamples[:, row, 0] - self.resamples[:, row, column],
        )
        return Difference(found.value, found.low, found.high)


def play(
    boxed: Sequence[Boxed], cams: Sequence[Cam], patients: NDArray[np.str_], bootstrap: int = 1000, seed: int = 0
) -> Pointing:
    """The pointing game on films with boxes.

    Args:
        boxed: N findings on films.
        cams: their maps.
        patients: whose films they are, [N].
        bootstrap: number of resamples of whole patients.
        seed: of the resampling.
    """
    scores = np.array(
        [
            [hits(peak(cam.map), one.boxes), covered(one.boxes), hits((0.5, 0.5), one.boxes)]
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

    values, resamples = bootstrap_patients(statistic, patients, bootstrap, seed)
    shape = (len(masks), len(RULES))
    return Pointing(
        (*names, OVERALL),
        [int(mask.sum()) for mask in masks],
        [len(set(patients[mask > 0].tolist())) for mask in masks],
        values.reshape(shape),
        resamples.reshape(-1, *shape),
    )


def peak(activation: Floats) -> tuple[float, float]:
    """The centre of the largest cell of a map [h, w]: x and y in shares of the film's side."""
    height, width = activation.shape
    row, column = divmod(int(activation.argmax()), width)
    return (column + 0.5) / width, (row + 0.5) / height


def hits(point: tuple[float, float], boxes: Floats) -> bool:
    """Whether a point lies in one of the boxes [n, 4], edges included."""
    x, y = point
    left, top, right, bottom = boxes.T
    return bool(np.any((left <= x) & (x <= right) & (top <= y) & (y <= bottom)))


def covered(boxes: Floats) -> float:
    """The share of the film that boxes [n, 4] cover, what they share counted once."""
    xs, ys = (pairwise(np.unique(boxes[:, [edge, edge + 2]]).tolist()) for edge in (0, 1))
    cells = product(xs, ys)  # no edge of a box lies inside one
    return sum((x1 - x0) * (y1 - y0) for (x0, x1), (y0, y1) in cells if hits(((x0 + x1) / 2, (y0 + y1) / 2), boxes))
