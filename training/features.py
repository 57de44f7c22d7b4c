"""Features of a frozen network on clean images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2l_models.devices import input_dtype
from c2l_models.embedding import evaluating
from c2l_models.errors import C2LError
from c2l_models.progress import Stage, stage

from .augment import clean_view
from .networks import recalibrate_batch_norm

MEAN, STD = 0.5, 0.25
"""Default normalisation of intensities in [0, 1], for networks without their own: a recipe's defaults."""

CALIBRATION_IMAGES = 4096
"""Largest number of images for the recalibration of batch norm."""


class Images(Protocol):
    """Protocol: anything that maps row numbers to images, uint8 [B, 1, S, S]."""

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
    """Clean views of these rows, in their order: normalised float32 [B, 1, size, size].

    Batches have at most `batch_size` images and are as even as possible, because a last batch of one image would have
    no variance for batch norm. `mean` and `std` are of intensities in [0, 1].
    """
    for part in np.array_split(rows, -(-len(rows) // batch_size)):
        yield clean_view(store[part].to(device), size, mean, std)


def calibration_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A random sample of these rows, at most `CALIBRATION_IMAGES`; the same at each call.

    Its order is random too, so that each batch is a random sample. A store is ordered by data set and patient.
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
    """Set batch norm's running statistics on clean images of these rows (a sample, see `calibration_rows`)."""
    sample = calibration_rows(rows)
    with stage("batch norm", len(sample), "images") as line, untuned_convolutions():
        recalibrate_batch_norm(network, _counted(line, clean_batches(store, sample, size, mean, std, device)))


def _counted(line: Stage, batches: Iterator[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        line.advance(len(batch))


@contextmanager
def untuned_convolutions() -> Iterator[None]:
    """Context in which cuDNN does not time its kernels for each new shape, because features have odd last batches.

    A run's steps, whose shapes never change, set `torch.backends.cudnn.benchmark`.
    """
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
    """The network's output on the clean view of each row: float32 [len(rows), D], in the rows' order.

    The network, [B, 1, size, size] -> [B, D], must be on the device. It runs in evaluation mode; its own mode is
    restored.
    """
    features = []
    with (
        evaluating(network),
        torch.inference_mode(),
        untuned_convolutions(),
        stage("features", len(rows), "images") as line,
    ):
        for batch in clean_batches(store, rows, size, mean, std, device, batch_size):
            features.append(network(batch.to(input_dtype(network))).float().cpu())
            line.advance(len(batch))
    return torch.cat(features).numpy()


def check_finite(*features: NDArray[np.floating]) -> None:
    """Raise C2LError if any feature is not finite, because no metric on them would mean anything."""
    for part in features:
        if not np.isfinite(part).all():
            raise C2LError("features are not finite: the network is broken, or its input is not normalised")
