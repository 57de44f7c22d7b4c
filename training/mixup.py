"""Batch mixup and feature mixup: one operation, on images and on features (the paper's equation 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .distributed import World


@dataclass(frozen=True)
class Mix:
    """One draw, shared by both views and by the features.

    Attributes:
        lam: λ, in [0, 1]: a scalar tensor, so that no GPU is waited for, or a number.
        permutation: int64 [B], the shuffle: row i is paired with row permutation[i].
    """

    lam: Tensor | float
    permutation: Tensor

    def block(self, world: World) -> "Mix":
        """A process's own part of a draw whose permutation stays within each process's rows."""
        own = world.block(self.permutation)
        return Mix(self.lam, own - world.rank * len(own))


def draw(batch_size: int, alpha: float = 1.0, generator: torch.Generator | None = None, blocks: int = 1) -> Mix:
    """Draw λ ~ Beta(alpha, alpha) and a permutation of the batch.

    Args:
        batch_size: B.
        alpha: Beta's two parameters; the paper's is 1, which makes λ uniform.
        generator: the draw is made on its device, by default the CPU.
        blocks: equal blocks of the batch that the permutation stays within; a divisor of B.
    """
    device = generator.device if generator else torch.device("cpu")
    # A Dirichlet of two is a Beta; torch.distributions takes no generator, this does.
    share = torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64, device=device), generator)
    rows = batch_size // blocks
    within = [torch.randperm(rows, generator=generator, device=device) for _ in range(blocks)]
    return Mix(share[0], torch.cat([block * rows + order for block, order in enumerate(within)]))


def mix(x: Tensor, m: Mix) -> Tensor:
    """lam * x + (1 - lam) * x[permutation], for images [B, C, H, W] or features [B, D] (equation 1)."""
    return m.lam * x + (1 - m.lam) * x[m.permutation.to(x.device)]
