"""Batch mixup and feature mixup: the same operation on images and on features (the paper's equation 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .distributed import World


@dataclass(frozen=True)
class Mix:
    """One draw of λ and the shuffle, shared by both views and the features.

    Attributes:
        lam: λ in [0, 1]: a number, or a scalar tensor, which does not wait for the GPU.
        permutation: int64 [B], the shuffle: row i is mixed with row permutation[i].
    """

    lam: Tensor | float
    permutation: Tensor

    def block(self, world: World) -> "Mix":
        """This process's part of a draw that stays within each process's rows; indices into its own B rows."""
        own = world.block(self.permutation)
        return Mix(self.lam, own - world.rank * len(own))


def draw(batch_size: int, alpha: float = 1.0, generator: torch.Generator | None = None, blocks: int = 1) -> Mix:
    """Draw λ ~ Beta(alpha, alpha) and a permutation of the batch.

    Args:
        batch_size: B.
        alpha: both parameters of Beta; 1 in the paper, which makes λ uniform.
        generator: λ and permutation are drawn on its device; None: torch's global generator on the CPU.
        blocks: number of equal blocks that the permutation stays within; a divisor of B.
    """
    device = generator.device if generator else torch.device("cpu")
    # A Dirichlet distribution of two components is a Beta; torch.distributions does not accept a generator.
    lam = torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64, device=device), generator)
    rows = batch_size // blocks
    within = [torch.randperm(rows, generator=generator, device=device) for _ in range(blocks)]
    return Mix(lam[0], torch.cat([block * rows + order for block, order in enumerate(within)]))


def mix(x: Tensor, m: Mix) -> Tensor:
    """λ x + (1 - λ) shuffle(x) (equation 1), for images [B, C, H, W] or features [B, D]."""
    return m.lam * x + (1 - m.lam) * x[m.permutation.to(x.device)]
