"""Metrics of features that show whether a run learns or collapses, and a rule that says which."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MIN_SPREAD, MIN_RANK = 0.1, 2.0
"""Features with a smaller spread or effective rank have collapsed: they are nearly one point or one line."""
LINES = 3
"""Number of successive lines of the log that must agree before a note is written."""


@torch.no_grad()
def alignment(queries: Tensor, keys: Tensor) -> Tensor:
    """Mean squared distance of a query to its key: 0 if both views of each image have the same feature.

    Wang & Isola, "Understanding Contrastive Representation Learning", ICML 2020, with α = 2.

    Args:
        queries, keys: unit vectors [B, D].
    """
    return (queries - keys).square().sum(dim=1).mean()


@torch.no_grad()
def uniformity(features: Tensor) -> Tensor:
    """Logarithm of the mean of exp(-2 d²) over all pairs of features, with d their distance.

    0 if all features are equal; about -4 if they are spread evenly over a sphere of high dimension. Wang & Isola, ICML
    2020, with t = 2.

    Args:
        features: unit vectors [B, D], B at least 2.
    """
    return torch.pdist(features).square().mul(-2).exp().mean().log()


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """Number of dimensions that the centred features [B, D] fill, between 1 and min(B - 1, D).

    The exponential of the entropy of the normalised singular values (Roy & Vetterli, "The Effective Rank", EUSIPCO
    2007). 0 if all features are equal.
    """
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp() * (values.sum() > 0)


def collapse(lines: Sequence[Mapping[str, float]]) -> str:
    """A message if the last lines of a run's log show collapsed features, otherwise "".

    Features have collapsed if in each of the last `LINES` lines their spread is below `MIN_SPREAD` or their effective
    rank below `MIN_RANK`.

    Args:
        lines: metrics of the log's training lines, with the keys "spread" and "effective_rank"; a method without
            these metrics is never reported.
    """
    last = [(line.get("spread", math.inf), line.get("effective_rank", math.inf)) for line in lines[-LINES:]]
    if len(last) < LINES or not all(spread < MIN_SPREAD or rank < MIN_RANK for spread, rank in last):
        return ""
    spread, rank = last[-1]
    return (
        f"the features have collapsed: expected a spread of at least {MIN_SPREAD:g} and an effective rank of at least "
        f"{MIN_RANK:g}, found {spread:.3f} and {rank:.1f}, and no better in the {LINES - 1} lines of the log before. "
        "The network gives nearly the same feature to all images. Stop the run, and start a new one with a lower "
        "--recipe.optimizer.lr, a longer --recipe.optimizer.warmup, or a --recipe.teacher-momentum nearer to 1"
    )
