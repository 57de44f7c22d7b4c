"""The memory queue Q: the features of past batches, that present ones are told apart from."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class MemoryQueue(nn.Module):
    """A ring of N unit vectors in which the oldest are overwritten (Algorithm 1, lines 5 and 18).

    Attributes:
        keys: float32 [N, D].
        pointer: int64 scalar, the row that the next insertion starts at.
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int, generator: torch.Generator | None = None) -> None:
        """Q = Rand(N, D): random directions, of unit length as all features are."""
        super().__init__()
        keys = torch.randn(length, dim, generator=generator)
        self.register_buffer("keys", functional.normalize(keys, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def insert(self, *batches: Tensor) -> None:
        """Write the rows of each batch [B, D] in turn over the oldest ones, past the end to the beginning.

        Every row is kept, whether or not the number of rows divides N. More rows than N at once would overwrite
        each other in no certain order, so that is a ValueError.
        """
        rows = torch.cat(batches)
        length = len(self.keys)
        if len(rows) > length:
            raise ValueError(f"{len(rows)} features do not fit a memory queue of {length}: make the queue longer")
        where = (self.pointer + torch.arange(len(rows), device=self.keys.device)) % length
        self.keys[where] = rows.to(self.keys.dtype)
        self.pointer.copy_((self.pointer + len(rows)) % length)
