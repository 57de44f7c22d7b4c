"""Join the shards of a store, made by several machines, to the store."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from c2l_models.errors import DatasetError
from c2l_models.files import sync_folder
from c2l_models.progress import stage

from .build_folder import STORE_FOLDER, clear, locked_build_folder, write_errors
from .build_plan import differences
from .crash_safe_array import npy_header, write_all
from .finished_store import PrepareReport, check_same_plan, summarize_store
from .store_format import (
    DESCRIPTION,
    FORMAT,
    IMAGES,
    INDEX,
    REFUSED,
    file_sha256,
    write_description,
    write_tables,
)

BLOCK_BYTES = 2**24  # bytes copied at a time
COPY_AGAIN = "copy the shard again, or make it again"


@dataclass(frozen=True)
class FinishedShard:
    """A finished shard: its folder, its number from 1 to `total`, and the content of its store.json."""

    path: Path
    number: int
    total: int
    plan: dict[str, Any]
    description: dict[str, Any]


def join_shards(shards: Sequence[Path], out: Path, progress: bool = True) -> PrepareReport:
    """Write the store `out` from the folders of all its shards, given in any order.

    The store has the same bytes as if one machine had prepared it. All bytes of the shards are checked against the
    hashes in their store.json. The shards are not changed, so the disk must have room for both. The store is written
    in `<out>.joining` and renamed; after an interruption, the same call starts again. If `out` is already the store,
    for example after a kill at the very end, the call only returns its report.

    Raises DatasetError if `out` exists and is not this store, if another process is joining it, if a folder is not a
    finished shard, if a shard is missing, given twice, damaged or from another plan, if no shard has an image, or if
    the disk is full.
    """
    started = time.monotonic()
    out = Path(out)
    opened = sorted((_open_shard(Path(path)) for path in shards), key=lambda shard: shard.number)
    _check_complete(opened)
    if out.exists():
        check_same_plan(out, opened[0].plan, None)
    joining = out.with_name(out.name + ".joining")
    with locked_build_folder(joining):
        if not out.exists():
            with write_errors(joining, "The shards are safe: free disk space, then repeat the command to start again"):
                clear(joining)
                _write_store(opened, joining / STORE_FOLDER, progress)
                (joining / STORE_FOLDER).rename(out)
                sync_folder(out.parent)
    return summarize_store(out, None, started)


def _write_store(shards: Sequence[FinishedShard], store: Path, progress: bool) -> None:
    store.mkdir()
    write_tables(store, _join_tables(shards, INDEX), _join_tables(shards, REFUSED))
    write_description(store, shards[0].plan, _join_images(shards, store / IMAGES, progress))


def _open_shard(path: Path) -> FinishedShard:
    if not (path / DESCRIPTION).is_file():
        raise DatasetError(
            f"{path} is not a finished shard: {DESCRIPTION} is missing; finish it by repeating its `c2l prepare` "
            "command"
        )
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT or "shard" not in description:
            raise DatasetError(f"{path} is not a shard of format {FORMAT}; make it with `c2l prepare --shard K/N`")
        shard = description["shard"]
        return FinishedShard(path, shard["number"], shard["of"], description["plan"], description)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path / DESCRIPTION} is damaged: {error!r}; {COPY_AGAIN}") from error


def _check_complete(shards: Sequence[FinishedShard]) -> None:
    if not shards:
        raise DatasetError("expected the folders of all shards, found none; `c2l prepare --shard` makes them")
    first = shards[0]
    for shard in shards:
        if different := differences(first.plan | {"shards": first.total}, shard.plan | {"shards": shard.total}):
            raise DatasetError(
                f"{shard.path} is not a shard of the same store as {first.path}; these settings differ: {different}; "
                "give the shards of one store"
            )
    numbers = Counter(shard.number for shard in shards)
    if missing := [str(number) for number in range(1, first.total + 1) if number not in numbers]:
        raise DatasetError(
            f"expected {first.total} shards, {', '.join(missing)} missing; give the folders of all shards"
        )
    if duplicates := [str(shard.path) for shard in shards if numbers[shard.number] > 1]:
        raise DatasetError(f"{', '.join(duplicates)} are the same shard; give each shard once")
    if not any(shard.description["images"] for shard in shards):
        raise DatasetError(f"no shard has an image; the reasons are in the {REFUSED} of each shard")


def _join_tables(shards: Sequence[FinishedShard], name: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(_checked(shard, name)) for shard in shards)


def _checked(shard: FinishedShard, name: str) -> Path:
    """The path of a shard's table, after a check of its hash."""
    file = shard.path / name
    if not file.is_file() or file_sha256(file) != shard.description[f"{file.stem}_sha256"]:
        raise _damaged(file)
    return file


def _damaged(file: Path) -> DatasetError:
    return DatasetError(f"{file} does not match its sha256 in {DESCRIPTION}; {COPY_AGAIN}")


def _join_images(shards: Sequence[FinishedShard], out: Path, progress: bool) -> str:
    """Write the array of all shards; returns its sha256."""
    size, count = shards[0].plan["size"], sum(shard.description["images"] for shard in shards)
    digest = hashlib.sha256(npy_header(count, size))
    with out.open("wb", buffering=0) as target, stage("copying", count, "images", progress) as line:
        write_all(target, npy_header(count, size))
        for shard in shards:
            _append_images(shard, size, target, digest)
            line.advance(shard.description["images"])
    return digest.hexdigest()


def _append_images(shard: FinishedShard, size: int, target: BinaryIO, joined_hash: "hashlib._Hash") -> None:
    """Copy the rows of a shard's array, check the shard's hash, and update the hash of the joined array."""
    file = shard.path / IMAGES
    header = npy_header(shard.description["images"], size)
    if not file.is_file() or file.stat().st_size != len(header) + shard.description["images"] * size**2:
        raise _damaged(file)
    shard_hash = hashlib.sha256()
    with file.open("rb") as source:
        shard_hash.update(source.read(len(header)))
        while block := source.read(BLOCK_BYTES):
            shard_hash.update(block)
            joined_hash.update(block)
            write_all(target, block)
    if shard_hash.hexdigest() != shard.description["images_sha256"]:
        raise _damaged(file)
