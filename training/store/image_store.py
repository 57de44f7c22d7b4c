"""The image store that `c2l prepare` writes, read: rows of uint8 images and the index that describes them."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from c2l_models.errors import DatasetError

from .prepare import prepare
from .store_format import FORMAT, IMAGES, INDEX, INDEX_SCHEMA, STORE, file_sha256

__all__ = ["ImageStore", "prepare"]

Rows = torch.Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True)
class ImageStore:
    """N images of S x S and their index; `store[rows]` gathers a batch.

    `images` is uint8 [N, S, S], memory-mapped, or on a device after `to`; `index` is row-aligned with it:
    path, dataset, patient, study, view, split, labels, sha256 of the file. `sha256` is that of index.parquet, and so
    names the corpus.
    """

    path: Path
    images: np.ndarray | torch.Tensor
    index: pa.Table
    sha256: str

    @classmethod
    def open(cls, path: Path | str) -> "ImageStore":
        """The store in the folder `path`; reads the index, maps the array without reading it (see `verify`).

        Raises DatasetError if it is no finished store but a shard or a part, or if array, index and description
        disagree.
        """
        path = Path(path)
        if missing := [name for name in (STORE, INDEX, IMAGES) if not (path / name).is_file()]:
            raise DatasetError(f"{path} is no store: no {', '.join(missing)}; make it with `c2l prepare`")
        try:
            description = json.loads((path / STORE).read_text())
            images = np.load(path / IMAGES, mmap_mode="r", allow_pickle=False)
            table = (path / INDEX).read_bytes()
            sha256 = hashlib.sha256(table).hexdigest()
            _check(path, description, images, sha256)
            index = pq.read_table(pa.BufferReader(table))
        except (ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
            raise DatasetError(f"{path} is damaged: {error}; {_AGAIN}") from error
        if index.schema.remove_metadata() != INDEX_SCHEMA or len(index) != len(images):
            raise DatasetError(f"{path / INDEX} has not the columns, or not the rows, of {IMAGES}; {_AGAIN}")
        return cls(path, images, index, sha256)

    def verify(self) -> None:
        """Read the whole array on the disk: DatasetError if it has not the bytes it was finished with."""
        wanted = json.loads((self.path / STORE).read_text()).get("images_sha256")
        if file_sha256(self.path / IMAGES) != wanted:
            raise DatasetError(f"{self.path / IMAGES} has not the sha256 that {STORE} says; {_AGAIN}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """The images' side S in pixels."""
        return int(self.images.shape[-1])

    def __getitem__(self, rows: Rows) -> torch.Tensor:
        """The images of these row numbers, uint8 [B, 1, S, S], on the store's device."""
        if isinstance(self.images, torch.Tensor):
            return self.images[torch.as_tensor(rows, device=self.images.device)].unsqueeze(1)
        where = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
        return torch.from_numpy(self.images[where]).unsqueeze(1)

    def to(self, device: torch.device | str) -> "ImageStore":
        """A store whose batches are gathered on this device: a GPU holds the whole array, the CPU maps it as it was."""
        if torch.device(device).type == "cpu" and isinstance(self.images, np.ndarray):
            return self
        if isinstance(self.images, torch.Tensor):
            return replace(self, images=self.images.to(device))
        moved = torch.empty(self.images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), 4096):  # by parts: host memory need not hold the array
            part = slice(start, start + 4096)
            moved[part] = torch.from_numpy(np.array(self.images[part]))
        return replace(self, images=moved)

    def select(
        self, dataset: str | Collection[str] | None = None, split: str | Collection[str] | None = None
    ) -> np.ndarray:
        """Row numbers, int64 and ascending, of the images of these data sets and splits; None is any."""
        mask = np.ones(len(self), bool)
        for column, wanted in (("dataset", dataset), ("split", split)):
            if wanted is not None:
                values = pa.array([wanted] if isinstance(wanted, str) else list(wanted), pa.string())
                mask &= pc.is_in(self.index[column], value_set=values).to_numpy()
        return np.flatnonzero(mask)

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """Labels float32 [N, len(names)]; NaN where an image has no such label or it is unknown."""
        column = pa.concat_arrays(self.index["labels"].chunks)
        rows = np.repeat(np.arange(len(self)), np.diff(column.offsets.to_numpy()))
        keys, values = column.keys, column.items.to_numpy(zero_copy_only=False)
        table = np.full((len(self), len(names)), np.nan, np.float32)
        for position, name in enumerate(names):
            here = pc.equal(keys, name).to_numpy(zero_copy_only=False)
            table[rows[here], position] = values[here]
        return table

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each image, [N] of str."""
        return self.index["patient"].to_numpy().astype(str)


_AGAIN = "copy it again from where it was made, or make it again with `c2l prepare`"


def _check(path: Path, description: dict[str, Any], images: np.ndarray, sha256: str) -> None:
    if "shard" in description:
        shard = description["shard"]
        raise DatasetError(f"{path} is shard {shard['number']} of {shard['of']}; open what joining all of them gives")
    if description["format"] != FORMAT:
        raise DatasetError(f"{path} is of format {description['format']}, not {FORMAT}; make it again")
    wanted = (description["images"], description["size"], description["size"])
    if images.shape != wanted or images.dtype != np.uint8:
        raise DatasetError(f"{path / IMAGES} is {images.dtype} {images.shape}, {STORE} says uint8 {wanted}; {_AGAIN}")
    if sha256 != description["index_sha256"]:
        raise DatasetError(f"{path / INDEX} has not the sha256 that {STORE} says; {_AGAIN}")
