"""Features of frozen networks, cached in the folder of their image store."""

import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from c2l_models.files import write_atomically

from ..features import extract_features
from ..store.image_store import ImageStore

FOLDER = "features"
"""Folder of cached features in a store. It can be deleted at any time, which frees its space."""
LIMIT = 2_000_000_000
"""Largest size of the folder in bytes; the least recently used files are deleted first. 10,000 images x 512 features
take 20 MB."""
VERSION = 1
"""To be increased if a change of the code changes the features, so that older cached features are not used."""


def cached_features(
    network: nn.Module,
    store: ImageStore,
    rows: NDArray[np.int64],
    size: int,
    mean: float,
    std: float,
    device: str | torch.device = "cpu",
) -> NDArray[np.float32]:
    """The result of `extract_features`, read from the store's folder `features` if it was computed before.

    A file's name is a hash of the network's structure and weights (batch-norm statistics included), the store's images,
    the rows, and the input's size and normalisation. Features are stored as float32, so that they are the computed
    ones bit by bit. Without permission to write, or on a full disk, nothing is cached.

    Args:
        network, store, rows, size, mean, std, device: as for `extract_features`.
    """
    file = store.path / FOLDER / f"{_key(network, store, rows, size, mean, std)}.npy"
    with suppress(OSError, ValueError, EOFError):  # missing or damaged
        found: NDArray[np.float32] = np.load(file, allow_pickle=False)
        os.utime(file)
        return found
    features = extract_features(network, store, rows, size, mean, std, device)
    buffer = io.BytesIO()
    np.save(buffer, features)
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, buffer.getvalue())
        _delete_oldest(file.parent)
    return features


def _key(network: nn.Module, store: ImageStore, rows: NDArray[np.int64], size: int, mean: float, std: float) -> str:
    digest = hashlib.sha256(repr(network).encode())
    digest.update(json.dumps([VERSION, store.sha256, store.size, size, mean, std]).encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _delete_oldest(folder: Path) -> None:
    """Delete files until the folder is no larger than `LIMIT`, the longest unused first."""
    files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > LIMIT:
            file.unlink(missing_ok=True)
