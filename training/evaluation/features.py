"""Features of a frozen network on clean films."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..augment import clean_view

CALIBRATION_IMAGES = 4096
"""Images that batch-norm statistics are recalibrated on, at most."""


class Images(Protocol):
    """What is asked of an image store: rows -> uint8 [B, 1, S, S]."""

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor: ...


def clean_batches(
    store: Images,
    rows: NDArray[np.int64],
    size: int,
    mean: float,
    std: float,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """The clean views of these rows in order: normalised float32 [B, 1, size, size], the last batch short.

    Mean and std are of intensities in [0, 1].
    """
    for first in range(0, len(rows), batch_size):
        batch = store[rows[first : first + batch_size]].to(device)
        yield clean_view(batch, size, mean, std)


def calibration_batches(
    store: Images,
    rows: NDArray[np.int64],
    size: int,
    mean: float,
    std: float,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """Clean views of up to `CALIBRATION_IMAGES` of these rows, drawn at random, always the same: see `clean_batches`.

    Each batch is a random draw from all rows (a store's order is by data set and patient), and none is short.
    """
    chosen = np.random.default_rng(0).permutation(rows)[:CALIBRATION_IMAGES]
    for part in np.array_split(chosen, -(-len(chosen) // batch_size)):
        yield clean_view(store[part].to(device), size, mean, std)


def extract_features(
    network: nn.Module,
    store: Images,
    rows: NDArray[np.int64],
    size: int,
    mean: float,
    std: float,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """The network's output on the clean view of each row, as float32 [len(rows), D], in the rows' order.

    The network, [B, 1, size, size] -> [B, D], has to be on the device; it runs in evaluation mode and gets
    its own mode back.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            batches = clean_batches(store, rows, size, mean, std, device, batch_size)
            features = [network(batch).float().cpu() for batch in batches]
    finally:
        for module, training in modes:
            module.training = training
    return torch.cat(features).numpy()
