"""Features of a frozen network on clean films."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2l_models.embedding import evaluating
from c2l_models.errors import C2LError

from .augment import clean_view
from .networks import recalibrate_batch_norm

MEAN, STD = 0.5, 0.25
"""Normalisation of inputs whose network brings none of its own: a recipe's defaults, of intensities in [0, 1]."""

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
    """The clean views of these rows in order: normalised float32 [B, 1, size, size].

    Batches are of `batch_size` at most and as even as can be: a last one of a single image would have no variance
    to calibrate batch norm with. Mean and std are of intensities in [0, 1].
    """
    for part in np.array_split(rows, -(-len(rows) // batch_size)):
        yield clean_view(store[part].to(device), size, mean, std)


def calibration_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Up to `CALIBRATION_IMAGES` of these rows, drawn at random, always the same.

    In this order each batch is a random draw from all of them; a store's order is by data set and patient.
    """
    return np.random.default_rng(0).permutation(rows)[:CALIBRATION_IMAGES]


def recalibrate(
    network: nn.Module,
    store: Images,
    rows: NDArray[np.int64],
    size: int,
    mean: float,
    std: float,
    device: str | torch.device = "cpu",
) -> None:
    """Set batch norm's running statistics on clean images of these rows, `calibration_rows` of them."""
    recalibrate_batch_norm(network, clean_batches(store, calibration_rows(rows), size, mean, std, device))


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
    with evaluating(network), torch.inference_mode():
        batches = clean_batches(store, rows, size, mean, std, device, batch_size)
        features = [network(batch).float().cpu() for batch in batches]
    return torch.cat(features).numpy()


def check_finite(*features: NDArray[np.floating]) -> None:
    """Raise C2LError where some are not finite: what is computed on them would say nothing."""
    for part in features:
        if not np.isfinite(part).all():
            raise C2LError("features that are not finite; a broken network, or input not normalised")
