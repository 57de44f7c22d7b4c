"""`StoreDataset`: the images of a store one at a time, for `torch.utils.data.DataLoader` and other libraries."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from c2l_models.errors import DatasetError

from .image_store import ImageStore


class Sample(NamedTuple):
    """One image of a `StoreDataset`. A `DataLoader` returns a `Sample` of batches.

    Attributes:
        image: uint8 [1, S, S], or the output of the transform.
        labels: float32 [L]; NaN if a label is unknown, and for an image that is for pretraining only.
        row: the image's row in the store.
    """

    image: Any
    labels: Tensor
    row: int


class StoreDataset(Dataset[Sample]):
    """The images and labels of a store that `c2l prepare` wrote, one `Sample` per index.

    Each worker process of a `DataLoader` maps the store's array itself, so the images are not copied to the workers.

    Attributes:
        store: the image store.
        rows: the row in the store of each index, int64 [N].
        labels: the labels of each index, float32 [N, L].

    Examples:
        >>> store = ImageStore.open("store")
        >>> transform = c2l_models.get_weights("resnet18.c2l_open26k").transform(in_chans=1)
        >>> train = StoreDataset(store, ["effusion"], store.select(split="train"), transform)
        >>> image, labels, row = train[0]  # float32 [1, S, S], float32 [1], int
    """

    def __init__(
        self,
        store: ImageStore | Path | str,
        labels: Sequence[str] = (),
        rows: Sequence[int] | np.ndarray | None = None,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        """Select rows and labels of a store.

        Args:
            store: the store, or its folder.
            labels: names of the L labels.
            rows: row numbers, such as `store.select(split="train")`; None: all rows.
            transform: called with each image, uint8 [1, S, S]; `Weights.transform` returns the network's input.

        Raises:
            DatasetError: the folder is not a complete store, `rows` is a boolean mask or has a row that is not in the
                store, or no selected image has a label of this name.
        """
        self.store = store if isinstance(store, ImageStore) else ImageStore.open(store)
        self.rows = np.arange(len(self.store)) if rows is None else _row_numbers(rows, self.store)
        self.labels = self.store.labels(labels)[self.rows]
        self.labels[self.store.pretraining_only[self.rows]] = np.nan
        for name, unknown in zip(labels, np.isnan(self.labels).all(0), strict=True):
            if unknown:
                raise DatasetError(
                    f"expected images with the label {name!r}, found none in {len(self.rows)} rows of "
                    f"{self.store.path}; choose other rows or a label of their data set"
                )
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = int(self.rows[index])
        image = self.store[[row]][0]
        return Sample(
            image if self.transform is None else self.transform(image), torch.from_numpy(self.labels[index].copy()), row
        )

    def __getstate__(self) -> dict[str, Any]:
        """The store's folder and hash in place of its array, which a spawned worker would otherwise receive whole."""
        if isinstance(self.store.images, Tensor):
            raise pickle.PicklingError(
                f"expected the store {self.store.path} on the disk, found it on {self.store.images.device}; use "
                "num_workers=0, or open the store again"
            )
        return self.__dict__ | {"store": (self.store.path.resolve(), self.store.sha256)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path, sha256 = state["store"]
        store = ImageStore.open(path)
        if store.sha256 != sha256:
            raise DatasetError(f"expected the store with index {sha256} in {path}, found {store.sha256}; open it again")
        self.__dict__ |= state | {"store": store}


def _row_numbers(rows: Sequence[int] | np.ndarray, store: ImageStore) -> np.ndarray:
    """Row numbers as int64 [N]. Raises DatasetError for a boolean mask, or a number that is no row of the store."""
    given = np.asarray(rows)
    if given.dtype.kind not in "iuf":  # an empty list is float64
        raise DatasetError(
            f"expected row numbers, found values of type {given.dtype}; of a boolean mask, pass np.flatnonzero(mask)"
        )
    if (wrong := ~((given >= 0) & (given < len(store)) & (given == np.floor(given)))).any():
        raise DatasetError(
            f"expected rows from 0 to {len(store) - 1} of {store.path}, found {given[wrong][0]}; choose rows with "
            "store.select"
        )
    return given.astype(np.int64)
