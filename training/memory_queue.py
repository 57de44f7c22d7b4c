"""The memory queue Q: features of past batches, with which present features are contrasted."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class MemoryQueue(nn.Module):
    """A ring buffer of N unit vectors; new ones overwrite the oldest (Algorithm 1, lines 5 and 18).

    Attributes:
        keys: float32 [N, D].
        pointer: int64 scalar, the row of the oldest vector, where the next insertion starts.
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int, generator: torch.Generator | None = None) -> None:
        """Q = Rand(N, D): random directions of unit length, as all features have."""
        super().__init__()
        keys = torch.randn(length, dim, generator=generator)
        self.register_buffer("keys", functional.normalize(keys, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def insert(self, *batches: Tensor) -> None:
        """Overwrite the oldest rows with the rows of each batch [B, D], in order; after row N comes row 1.

        The number of rows need not divide N.

        Raises:
            ValueError: there are more than N rows. They would overwrite each other in an undefined order.
        """
        rows = torch.cat(batches)
        length = len(self.keys)
        if len(rows) > length:
            raise ValueError(
                f"expected at most {length} features, the queue's length, found {len(rows)}; lengthen the queue"
            )
        positions = (self.pointer + torch.arange(len(rows), device=self.keys.device)) % length
        self.keys[positions] = rows.to(self.keys.dtype)
        self.pointer.copy_((self.pointer + len(rows)) % length)
