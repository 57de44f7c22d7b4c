"""`ImageStore`: read the uint8 images of a store that `c2l prepare` wrote, and their index."""

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

from .store_format import DESCRIPTION, FIRST_FORMAT, FORMAT, IMAGES, INDEX, INDEX_SCHEMA, file_sha256, with_all_columns

Rows = torch.Tensor | np.ndarray | Sequence[int]
COPY_AGAIN = "copy the store again from its source, or make it again with `c2l prepare`"


@dataclass(frozen=True)
class ImageStore:
    """N images of S x S pixels and their index; `store[rows]` returns a batch.

    Attributes:
        path: the store's folder.
        images: uint8 [N, S, S], memory-mapped, or a tensor on a device after `to`.
        index: N rows in the order of the images: path, dataset, patient, study, view, split, labels, sha256 of the
            file, body_part, source, pretraining_only. In a store of format 2, the source is the data set and the other
            two are "" and False.
        sha256: sha256 of index.parquet, which identifies the corpus.
    """

    path: Path
    images: np.ndarray | torch.Tensor
    index: pa.Table
    sha256: str

    @classmethod
    def open(cls, path: Path | str) -> "ImageStore":
        """Open the store in the folder `path`.

        The index is read and its sha256 is checked. The array is mapped, not read; `verify` checks it.

        Raises DatasetError if the folder is a shard or an unfinished store, or if array, index and description
        disagree.
        """
        path = Path(path)
        if missing := [name for name in (DESCRIPTION, INDEX, IMAGES) if not (path / name).is_file()]:
            raise DatasetError(
                f"{path} is not a store: {', '.join(missing)} missing; make or finish it with `c2l prepare`"
            )
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            images = np.load(path / IMAGES, mmap_mode="r", allow_pickle=False)
            table = (path / INDEX).read_bytes()
            sha256 = hashlib.sha256(table).hexdigest()
            _check_description(path, description, images, sha256)
            index = with_all_columns(pq.read_table(pa.BufferReader(table)))
        except (ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
            raise DatasetError(f"{path} is damaged: {error}; {COPY_AGAIN}") from error
        if index.schema.remove_metadata() != INDEX_SCHEMA or len(index) != len(images):
            raise DatasetError(
                f"{path / INDEX} lacks a column, or does not have one row per image of {IMAGES}; {COPY_AGAIN}"
            )
        return cls(path, images, index, sha256)

    def verify(self) -> None:
        """Read the whole array from the disk; raises DatasetError if its sha256 differs from the one in store.json."""
        expected = json.loads((self.path / DESCRIPTION).read_text(encoding="utf-8")).get("images_sha256")
        if file_sha256(self.path / IMAGES) != expected:
            raise DatasetError(f"{self.path / IMAGES} does not match its sha256 in {DESCRIPTION}; {COPY_AGAIN}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side S of the images in pixels."""
        return int(self.images.shape[-1])

    def __getitem__(self, rows: Rows) -> torch.Tensor:
        """The images of these row numbers, uint8 [B, 1, S, S], on the store's device."""
        if isinstance(self.images, torch.Tensor):
            return self.images[torch.as_tensor(rows, device=self.images.device)].unsqueeze(1)
        numbers = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
        return torch.from_numpy(self.images[numbers]).unsqueeze(1)

    def to(self, device: torch.device | str) -> "ImageStore":
        """A store whose batches are gathered on this device.

        A GPU stores the whole array in its memory. On the CPU, a memory-mapped array stays mapped.
        """
        if torch.device(device).type == "cpu" and isinstance(self.images, np.ndarray):
            return self
        if isinstance(self.images, torch.Tensor):
            return replace(self, images=self.images.to(device))
        moved = torch.empty(self.images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), 4096):  # in blocks, because host memory may be smaller than the array
            block = slice(start, start + 4096)
            moved[block] = torch.from_numpy(np.array(self.images[block]))
        return replace(self, images=moved)

    def select(
        self, dataset: str | Collection[str] | None = None, split: str | Collection[str] | None = None
    ) -> np.ndarray:
        """Row numbers of the images of these data sets and splits, int64, ascending; None selects all."""
        mask = np.ones(len(self), bool)
        for column, selected in (("dataset", dataset), ("split", split)):
            if selected is not None:
                values = pa.array([selected] if isinstance(selected, str) else list(selected), pa.string())
                mask &= pc.is_in(self.index[column], value_set=values).to_numpy()
        return np.flatnonzero(mask)

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """Labels float32 [N, len(names)]; NaN if an image lacks the label or it is unknown."""
        column = pa.concat_arrays(self.index["labels"].chunks)
        rows = np.repeat(np.arange(len(self)), np.diff(column.offsets.to_numpy()))
        keys, values = column.keys, column.items.to_numpy(zero_copy_only=False)
        table = np.full((len(self), len(names)), np.nan, np.float32)
        for position, name in enumerate(names):
            is_label = pc.equal(keys, name).to_numpy(zero_copy_only=False)
            table[rows[is_label], position] = values[is_label]
        return table

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each image, str [N]."""
        return self.index["patient"].to_numpy().astype(str)

    @cached_property
    def sources(self) -> np.ndarray:
        """The source of each image, str [N]: the data set's name, or "NAME/SOURCE" if its description names sources."""
        return self.index["source"].to_numpy().astype(str)

    @cached_property
    def pretraining_only(self) -> np.ndarray:
        """Whether an image is for pretraining without labels only, bool [N]; no labelled task may use it."""
        return self.index["pretraining_only"].fill_null(False).to_numpy()

    def data_sets(self) -> dict[str, dict[str, Any]]:
        """The facts in `store.json` (`description.FACTS`) by data set, for the data sets that have a description."""
        plan: dict[str, Any] = json.loads((self.path / DESCRIPTION).read_text(encoding="utf-8"))["plan"]
        data_sets: dict[str, dict[str, Any]] = plan.get("data_sets", {})
        return data_sets


def _check_description(path: Path, description: dict[str, Any], images: np.ndarray, sha256: str) -> None:
    if "shard" in description:
        shard = description["shard"]
        raise DatasetError(
            f"{path} is shard {shard['number']} of {shard['of']}, not a store; join all shards with `c2l join`"
        )
    if not FIRST_FORMAT <= description["format"] <= FORMAT:
        raise DatasetError(
            f"{path}: expected a store of format {FIRST_FORMAT} to {FORMAT}, found format {description['format']}; "
            "make it again with `c2l prepare`"
        )
    expected = (description["images"], description["size"], description["size"])
    if images.shape != expected or images.dtype != np.uint8:
        raise DatasetError(
            f"{path / IMAGES}: expected uint8 {expected} as in {DESCRIPTION}, found {images.dtype} {images.shape}; "
            f"{COPY_AGAIN}"
        )
    if sha256 != description["index_sha256"]:
        raise DatasetError(f"{path / INDEX} does not match its sha256 in {DESCRIPTION}; {COPY_AGAIN}")
