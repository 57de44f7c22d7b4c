"""Batch mixup and feature mixup: one operation, on images and on features (the paper's equation 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """One draw, shared by both views and by the features.

    Attributes:
        lam: λ, in [0, 1].
        permutation: int64 [B], the shuffle: row i is paired with row permutation[i].
    """

    lam: float
    permutation: Tensor


def draw(batch_size: int, alpha: float = 1.0, generator: torch.Generator | None = None) -> Mix:
    """Draw λ ~ Beta(alpha, alpha) and a permutation of the batch.

    Args:
        batch_size: B.
        alpha: Beta's two parameters; the paper's is 1, which makes λ uniform.
        generator: a CPU generator; λ is needed as a number, so drawing on a GPU would make it wait.

    Returns:
        The draw; its permutation is on the CPU.
    """
    # A Dirichlet of two is a Beta; torch.distributions takes no generator, this does.
    share = torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64), generator)
    return Mix(float(share[0]), torch.randperm(batch_size, generator=generator))


def mix(x: Tensor, m: Mix) -> Tensor:
    """lam * x + (1 - lam) * x[permutation], for images [B, C, H, W] or features [B, D] (equation 1)."""
    return m.lam * x + (1 - m.lam) * x[m.permutation.to(x.device)]
