"""Weighted k-nearest-neighbour classification of features."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ..features import check_finite

_CHUNK = 1024
"""Number of test rows that are compared with all training rows at once, to limit memory."""


def knn_scores(
    train_features: NDArray[np.float32],
    train_labels: NDArray[np.floating],
    test_features: NDArray[np.float32],
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float32]:
    """Weighted share of positives among the k nearest training images, for each label.

    A neighbour at cosine similarity s has weight exp(s / temperature). Neighbours with an unknown label do not count.
    If the label of all k neighbours is unknown, the score is the share of positives in the training part.

    Args:
        train_features: float [N, D].
        train_labels: [N, L]; 0, 1 or NaN (unknown).
        test_features: float [M, D].
        k: number of neighbours; at most N are used.
        temperature: temperature of the weights.

    Returns:
        float32 [M, L] in [0, 1]; NaN for a label with only one class in the training part.

    Raises:
        C2LError: features that are not finite.
    """
    check_finite(train_features, test_features)
    bank = normalize(torch.as_tensor(train_features, dtype=torch.float32))
    labels = torch.as_tensor(train_labels, dtype=torch.float32)
    queries = normalize(torch.as_tensor(test_features, dtype=torch.float32))
    share = labels.nanmean(dim=0)
    k = min(k, len(bank))
    scores = torch.cat([_votes(chunk @ bank.T, labels, k, temperature, share) for chunk in queries.split(_CHUNK)])
    scores[:, ~((share > 0) & (share < 1))] = torch.nan
    return scores.numpy()


def _votes(similarity: Tensor, labels: Tensor, k: int, temperature: float, share: Tensor) -> Tensor:
    """Similarities [B, N] and labels [N, L] -> weighted share of positives among the k nearest, [B, L]."""
    nearest, index = similarity.topk(k, dim=1)
    neighbours = labels[index]  # [B, k, L]
    weight = ((nearest - nearest[:, :1]) / temperature).exp()[:, :, None] * ~neighbours.isnan()
    votes = (weight * neighbours.nan_to_num()).sum(dim=1)
    total = weight.sum(dim=1)
    return torch.where(total > 0, votes / total, share)
